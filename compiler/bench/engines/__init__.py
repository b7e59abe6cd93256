"""The engines that artefacts are timed against, one file each. Adding one is adding a file with an ``ENGINE``."""

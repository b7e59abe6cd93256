"""Ways to choose the range in which values are quantised, one a file; each is found by its name."""

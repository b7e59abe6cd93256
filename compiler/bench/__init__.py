"""Timing artefacts beside other engines."""

"""Observers that choose the range of a grid, one a file; each is found by its name."""

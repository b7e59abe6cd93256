"""The numbers that stored weights can be: one kind of grid a file, found by name."""

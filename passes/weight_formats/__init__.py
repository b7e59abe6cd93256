"""The numbers that stored weights can be: one format a file, found by name."""

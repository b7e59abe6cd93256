"""The ways to factor a layer, one a file."""

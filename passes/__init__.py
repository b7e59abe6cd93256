"""The passes of lvc, one file each, named after the pass."""

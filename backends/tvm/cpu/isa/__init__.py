"""Instruction sets for vectors, one file each, and the choice among them."""

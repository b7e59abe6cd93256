"""Tuning: what a search over kernels needs that knows no backend, from its budget to the database of its records."""

"""Kernels that state their own launches."""

"""Kernels with loop nests of our own: a problem, its TE definition, its weights in memory, and its nest."""

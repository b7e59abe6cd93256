"""Schedules of the kernels that are no contraction."""

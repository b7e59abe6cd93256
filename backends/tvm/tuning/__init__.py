"""Tuning of kernels: what `lvc.compiler.tuning` asks of a backend, for every device that can tell ways to make one."""

"""How each operator of the dialect is computed: one table, keyed by operator."""

from lvc.backends.tvm.ops import contractions, elementwise, movement, normalisation, reductions, windows

__all__ = ["contractions", "elementwise", "movement", "normalisation", "reductions", "windows"]

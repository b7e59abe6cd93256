"""Keys of a node's ``meta`` that commands know before anything heavy is imported."""

from __future__ import annotations

TF32 = "tf32"
"""Of a contraction whose factors a backend may round to TF32: see `lvc.compiler.ir.tf32`. Also the name of the type."""

"""TF32, in which tensor cores multiply float32: its exponents, and 10 bits behind the point in place of 23."""

from __future__ import annotations

import torch

LOST_BITS = 13


def to_tf32(values: torch.Tensor) -> torch.Tensor:
    """Round float32 to the nearest number of TF32, ties away from zero, as ``cvt.rna.tf32.f32`` does (PTX ISA); what
    has no number in it stays as it is."""
    bits = values.contiguous().view(torch.int32)
    rounded = ((bits + (1 << LOST_BITS - 1)) & -(1 << LOST_BITS)).view(torch.float32)
    return torch.where(values.isnan(), values, rounded)

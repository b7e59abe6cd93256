"""The mark of a value of which only the first elements count: importers write it, and no finished graph holds it."""

from __future__ import annotations

import torch

from lvc.compiler.ir.operators.library import operator


@operator("counted(Tensor x, Tensor count, int dim) -> Tensor")
def counted(x: torch.Tensor, count: torch.Tensor, dim: int) -> torch.Tensor:
    """The first ``count``, an integer of rank 0, elements of ``x`` along a dimension.

    While a model is traced it keeps the length of ``x``, and `lvc.compiler.load.lengths` sees to it that the rest
    counts nowhere.
    """
    if count.ndim or count.dtype != torch.int64 or not -x.ndim <= dim < x.ndim:
        raise TypeError(f"{tuple(count.shape)} of {count.dtype} does not count in {tuple(x.shape)} along {dim}")
    if x.is_meta:
        return x.clone(memory_format=torch.contiguous_format)
    return x.narrow(dim, 0, int(count)).clone(memory_format=torch.contiguous_format)

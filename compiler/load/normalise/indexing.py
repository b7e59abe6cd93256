"""Indexing by tensors of integers: one `index_select` on flattened indices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.composite import written
from lvc.compiler.load.normalise.movement import axis, permute, reshape
from lvc.compiler.load.normalise.open_lengths import indexed, is_mask

aten = torch.ops.aten


def _index(b: Builder, x: Operand, indices: Sequence[Operand | None]) -> Operand:
    """``x[indices]``: the indexed dimensions become one, read at row-major places; Swin's bias tables are such."""
    if not all(index is None or index.is_constant for index in indices):
        return _computed(b, x, indices)
    places, known = _by_dimension(indices)
    if places != list(range(places[0], places[0] + len(places))):
        rest = [d for d in range(x.rank) if d not in places]
        x, places = permute(b, x, [*places, *rest]), list(range(len(places)))
    first, last = places[0], places[-1] + 1
    before, sizes, after = x.shape[:first], x.shape[first:last], x.shape[last:]
    shape = np.broadcast_shapes(*(tuple(index.shape) for index in known))
    known = [index.expand(shape) for index in known]
    flat = _ravel(known, sizes)
    rows = reshape(b, x, (*before, math.prod(sizes), *after))
    picked = b.call(aten.index_select.default, rows, first, b.constant(flat.reshape(-1)))
    return reshape(b, picked, (*before, *flat.shape, *after))


def _computed(b: Builder, x: Operand, indices: Sequence[Operand | None]) -> Operand:
    """The same where indices are computed; with a mask the result is as long as that selects, at its largest length."""
    given = [index for index in indices if index is not None]
    if any(map(is_mask, given)):
        return written(b, indexed, x, indices)  # type: ignore[return-value]
    dims = [d for d, index in enumerate(indices) if index is not None]
    if dims != list(range(dims[0], dims[-1] + 1)):
        rest = [d for d in range(x.rank) if d not in dims]
        x, dims = permute(b, x, [*dims, *rest]), list(range(len(dims)))
    first, last = dims[0], dims[-1] + 1
    shape = np.broadcast_shapes(*(index.shape for index in given))
    flat = linear_index(b, given, x.shape[first:last])
    rows = reshape(b, x, (*x.shape[:first], math.prod(x.shape[first:last]), *x.shape[last:]))
    picked = b.call(aten.index_select.default, rows, first, reshape(b, flat, (-1,)))
    return reshape(b, picked, (*x.shape[:first], *shape, *x.shape[last:]))


def linear_index(b: Builder, indices: Sequence[Operand], sizes: Sequence[int]) -> Operand:
    """One index into dimensions of these sizes, from one for each; negative ones count from the end."""
    total: Operand | None = None
    for index, size in zip(indices, sizes, strict=True):
        wide = b.call(aten.to.dtype, index, torch.int64) if index.dtype is not torch.int64 else index
        wrapped = b.call(aten.remainder.Tensor, wide, b.scalar(size, torch.int64))
        scaled = b.call(aten.mul.Tensor, total, size) if total is not None else None
        total = wrapped if scaled is None else b.call(aten.add.Tensor, scaled, wrapped)
    assert total is not None
    return total


def _by_dimension(indices: Sequence[Operand | None]) -> tuple[list[int], list[torch.Tensor]]:
    """The indexed dimensions, and for each its integers; a mask stands for as many as it has dimensions."""
    places, known, dim = [], [], 0
    for index in indices:
        if index is None:
            dim += 1
            continue
        values = _values(index)
        masks = values.dtype in (torch.bool, torch.uint8)
        for part in values.nonzero(as_tuple=True) if masks else [values]:
            places.append(dim)
            known.append(part)
            dim += 1
    return places, known


def _values(index: Operand) -> torch.Tensor:
    if not index.is_constant:
        raise Unsupported("its indices are computed from the input or from weights")
    assert index.value is not None
    return index.value


def _ravel(indices: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
    flat = torch.zeros_like(indices[0], dtype=torch.int64)
    for index, size in zip(indices, sizes, strict=True):
        if index.numel() and not -size <= int(index.min()) <= int(index.max()) < size:
            raise Unsupported(f"an index lies outside a dimension of size {size}")
        flat = flat * size + index.to(torch.int64) % size
    return flat


def _embedding(b: Builder, weight: Operand, indices: Operand, *_: object) -> Operand:
    return b.call(aten.embedding.default, weight, indices)


def _index_select(b: Builder, x: Operand, dim: int, index: Operand) -> Operand:
    return b.call(aten.index_select.default, x, axis(x, dim), index)


def _gather(b: Builder, x: Operand, dim: int, index: Operand, *, sparse_grad: bool = False) -> Operand:
    return b.call(aten.gather.default, x, axis(x, dim), index)


INDEXING: dict[OpOverload, Rule] = {
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.gather.default: _gather,
    aten.embedding.default: _embedding,
}

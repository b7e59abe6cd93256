"""Writing through views: what a tensor is after one of its views was written.

Eager PyTorch lets ``x[:, 0] += 1`` change ``x``. In a graph without memory that is a new ``x``, put together from
the old one and the written part. Each entry takes the old tensor, the new value of the view and the arguments of the
call that made the view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand
from lvc.compiler.load.normalise.movement import cat, permute, reshape, select_scatter, slice_scatter, stack
from lvc.compiler.load.normalise.rules import RULES

aten = torch.ops.aten

Inverse = Callable[..., Operand]


def _whole(b: Builder, old: Operand, view: Operand, *_: Any, **__: Any) -> Operand:
    return view


def _reshaped(b: Builder, old: Operand, view: Operand, *_: Any, **__: Any) -> Operand:
    return reshape(b, view, old.shape)


def _permuted(overload: OpOverload) -> Inverse:
    """Undo any transpose: carry the numbers of the dimensions through it, and sort them back."""

    def inverse(b: Builder, old: Operand, view: Operand, *args: Any, **kwargs: Any) -> Operand:
        sizes = torch.empty(*range(1, old.rank + 1), device="meta")
        moved = [size - 1 for size in overload(sizes, *args, **kwargs).shape]
        return permute(b, view, [moved.index(dim) for dim in range(old.rank)])

    return inverse


def _sliced(b: Builder, old: Operand, view: Operand, *args: Any, **kwargs: Any) -> Operand:
    return slice_scatter(b, old, view, *args, **kwargs)


def _selected(b: Builder, old: Operand, view: Operand, *args: Any, **kwargs: Any) -> Operand:
    return select_scatter(b, old, view, *args, **kwargs)


def _narrowed(b: Builder, old: Operand, view: Operand, dim: int, start: int, length: int) -> Operand:
    return slice_scatter(b, old, view, dim, start, start % old.shape[dim] + length)


def _parted(b: Builder, old: Operand, parts: Sequence[Operand], _: Any, dim: int = 0) -> Operand:
    return cat(b, parts, dim)


def _unbound(b: Builder, old: Operand, parts: Sequence[Operand], dim: int = 0) -> Operand:
    return stack(b, parts, dim)


_TRANSPOSES = (
    aten.permute.default,
    aten.transpose.int,
    aten.swapaxes.default,
    aten.swapdims.default,
    aten.t.default,
    aten.numpy_T.default,
    aten.mT.default,
    aten.movedim.int,
    aten.movedim.intlist,
)
_RESHAPES = (
    aten.view.default,
    aten.reshape.default,
    aten.view_as.default,
    aten.reshape_as.default,
    aten.flatten.using_ints,
    aten.ravel.default,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
_IDENTITIES = (
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.lift_fresh.default,
    aten.pad.default,
)
"""These give a view only where they change nothing."""

INVERSES: dict[OpOverload, Inverse] = {
    **{overload: _permuted(overload) for overload in _TRANSPOSES},
    **dict.fromkeys(_RESHAPES, _reshaped),
    **dict.fromkeys(_IDENTITIES, _whole),
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
    aten.narrow.default: _narrowed,
    aten.chunk.default: _parted,
    aten.split.Tensor: _parted,
    aten.split.sizes: _parted,
    aten.split_with_sizes.default: _parted,
    aten.tensor_split.sections: _parted,
    aten.unbind.int: _unbound,
}
assert all(overload in RULES for overload in _TRANSPOSES + _RESHAPES)

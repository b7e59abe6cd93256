"""Movement: every view is a `reshape`, every transpose a `permute`, every part of a tensor a `slice`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported

aten = torch.ops.aten


def axis(x: Operand, dim: int) -> int:
    """A dimension counted from the front; a tensor of rank 0 has one."""
    return dim % max(x.rank, 1)


def reshape(b: Builder, x: Operand, shape: Sequence[int]) -> Operand:
    """Reshape to sizes one of which may be -1; nothing is written if the shape is right already."""
    known = math.prod(size for size in shape if size != -1)
    sizes = [math.prod(x.shape) // max(known, 1) if size == -1 else int(size) for size in shape]
    return x if tuple(sizes) == x.shape else b.call(aten.reshape.default, x, sizes)


def permute(b: Builder, x: Operand, dims: Sequence[int]) -> Operand:
    order = [dim % x.rank for dim in dims]
    return x if order == list(range(x.rank)) else b.call(aten.permute.default, x, order)


def cut(
    b: Builder, x: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Operand:
    """``x[start:end:step]`` along a dimension, written with 0 <= start <= end <= size."""
    dim %= x.rank
    start, end, _ = slice(start, end).indices(x.shape[dim])
    end = max(start, end)
    if (start, end, step) == (0, x.shape[dim], 1):
        return x
    return b.call(aten.slice.Tensor, x, dim, start, end, step)


def cat(b: Builder, parts: Sequence[Operand], dim: int = 0) -> Operand:
    """Join; parts of shape (0,) fit beside any other, and only their type counts."""
    dtype = reduce(torch.promote_types, [part.dtype for part in parts])
    kept = [part for part in parts if part.shape != (0,)] or list(parts[:1])
    if len(kept) < len(parts) or len(kept) == 1:
        kept = [part if part.dtype is dtype else b.call(aten.to.dtype, part, dtype) for part in kept]
    return kept[0] if len(kept) == 1 else b.call(aten.cat.default, kept, axis(kept[0], dim))


def stack(b: Builder, parts: Sequence[Operand], dim: int = 0) -> Operand:
    dim %= parts[0].rank + 1
    return cat(b, [unsqueeze(b, part, dim) for part in parts], dim)


def _stack_flat(dim: int) -> Rule:
    """``hstack`` and ``vstack``: numbers become vectors, which are joined, or made rows first."""

    def rule(b: Builder, parts: Sequence[Operand]) -> Operand:
        parts = [unsqueeze(b, part, 0) if part.rank == 0 else part for part in parts]
        if dim == 0:
            parts = [unsqueeze(b, part, 0) if part.rank == 1 else part for part in parts]
        return cat(b, parts, min(dim, parts[0].rank - 1))

    return rule


def unsqueeze(b: Builder, x: Operand, dim: int) -> Operand:
    dim %= x.rank + 1
    return reshape(b, x, (*x.shape[:dim], 1, *x.shape[dim:]))


def expand(b: Builder, x: Operand, size: Sequence[int], *, implicit: bool = False) -> Operand:
    new = len(size) - x.rank
    sizes = [x.shape[i - new] if wanted == -1 else int(wanted) for i, wanted in enumerate(size)]
    return x if tuple(sizes) == x.shape else b.call(aten.expand.default, x, sizes)


def split(b: Builder, x: Operand, sizes: Sequence[int], dim: int = 0) -> tuple[Operand, ...]:
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return tuple(cut(b, x, dim, start, end) for start, end in pairwise(ends))


def select(b: Builder, x: Operand, dim: int, index: int) -> Operand:
    dim %= x.rank
    index %= x.shape[dim]
    return reshape(b, cut(b, x, dim, index, index + 1), (*x.shape[:dim], *x.shape[dim + 1 :]))


def pad(b: Builder, x: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Operand:
    if not any(pad):
        return x
    if mode == "constant":
        return b.call(aten.constant_pad_nd.default, x, list(pad), value or 0)
    return b.call(aten.pad.default, x, list(pad), mode)


def same(b: Builder, x: Operand, *_: Any, **__: Any) -> Operand:
    """An operator that changes nothing here: memory order, gradients and devices are no part of the dialect."""
    return x


def _flatten(b: Builder, x: Operand, start_dim: int = 0, end_dim: int = -1) -> Operand:
    if x.rank == 0:
        return reshape(b, x, (1,))
    start, end = start_dim % x.rank, end_dim % x.rank
    return reshape(b, x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _unflatten(b: Builder, x: Operand, dim: int, sizes: Sequence[int]) -> Operand:
    dim %= x.rank
    return reshape(b, x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


def _squeeze(b: Builder, x: Operand, dim: int | Sequence[int] | None = None) -> Operand:
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % x.rank for d in dims if x.shape[d] == 1} if x.rank else set()
    return reshape(b, x, [size for i, size in enumerate(x.shape) if i not in gone])


def _like(b: Builder, x: Operand, other: Operand) -> Operand:
    return reshape(b, x, other.shape)


def _transpose(b: Builder, x: Operand, dim0: int, dim1: int) -> Operand:
    order = list(range(x.rank))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(b, x, order)


def _reverse(b: Builder, x: Operand) -> Operand:
    return permute(b, x, list(reversed(range(x.rank))))


def _move(b: Builder, x: Operand, source: int | Sequence[int], destination: int | Sequence[int]) -> Operand:
    sources = [axis(x, d) for d in ([source] if isinstance(source, int) else source)]
    targets = [axis(x, d) for d in ([destination] if isinstance(destination, int) else destination)]
    rest = iter([d for d in range(x.rank) if d not in sources])
    placed = dict(zip(targets, sources, strict=True))
    return permute(b, x, [placed[d] if d in placed else next(rest) for d in range(x.rank)])


def _narrow(b: Builder, x: Operand, dim: int, start: int, length: int) -> Operand:
    start = start + x.shape[dim] if start < 0 else start
    return cut(b, x, dim, start, start + length)


def _chunk(b: Builder, x: Operand, chunks: int, dim: int = 0) -> tuple[Operand, ...]:
    return _split_every(b, x, max(1, -(-x.shape[dim] // chunks)), dim)


def _split_every(b: Builder, x: Operand, size: int, dim: int = 0) -> tuple[Operand, ...]:
    total = x.shape[dim]
    return split(b, x, [min(size, total - start) for start in range(0, total, size)], dim)


def _tensor_split(b: Builder, x: Operand, sections: int, dim: int = 0) -> tuple[Operand, ...]:
    size, more = divmod(x.shape[dim], sections)
    return split(b, x, [size + (i < more) for i in range(sections)], dim)


def _unbind(b: Builder, x: Operand, dim: int = 0) -> tuple[Operand, ...]:
    return tuple(select(b, x, dim, i) for i in range(x.shape[dim]))


def _expand_as(b: Builder, x: Operand, other: Operand) -> Operand:
    return expand(b, x, other.shape)


def _repeat(b: Builder, x: Operand, repeats: Sequence[int]) -> Operand:
    counts = [1] * (x.rank - len(repeats)) + list(repeats)
    if all(count == 1 for count in counts):
        return reshape(b, x, [1] * (len(counts) - x.rank) + list(x.shape))
    return b.call(aten.repeat.default, x, counts)


def _repeat_interleave(
    b: Builder, x: Operand, repeats: int, dim: int | None = None, *, output_size: int | None = None
) -> Operand:
    if dim is None:
        x, dim = _flatten(b, x), 0
    dim %= x.rank
    before, size, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1 :]
    repeated = expand(b, unsqueeze(b, x, dim + 1), (*before, size, repeats, *after))
    return reshape(b, repeated, (*before, size * repeats, *after))


def _roll(b: Builder, x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Operand:
    if not dims:
        return reshape(b, _roll(b, _flatten(b, x), shifts, [0]), x.shape)
    return b.call(aten.roll.default, x, list(shifts), [dim % x.rank for dim in dims])


def _flip(b: Builder, x: Operand, dims: Sequence[int]) -> Operand:
    return b.call(aten.flip.default, x, [dim % x.rank for dim in dims])


def _constant_pad(b: Builder, x: Operand, sizes: Sequence[int], value: float = 0) -> Operand:
    return pad(b, x, sizes, "constant", value)


def _pad_by(mode: str) -> Rule:
    return lambda b, x, sizes: pad(b, x, sizes, mode)


def _channel_shuffle(b: Builder, x: Operand, groups: int) -> Operand:
    batch, channels, *rest = x.shape
    apart = reshape(b, x, (batch, groups, channels // groups, *rest))
    return reshape(b, _transpose(b, apart, 1, 2), x.shape)


def slice_scatter(
    b: Builder,
    x: Operand,
    source: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Operand:
    """``x`` with ``source`` in the place of ``x[start:end]`` along a dimension."""
    size = x.shape[dim]
    start, end, _ = slice(start, end).indices(size)
    if step != 1:
        raise Unsupported(f"it writes one in {step} elements")
    parts = [cut(b, x, dim, 0, start), source, cut(b, x, dim, max(start, end), size)]
    return cat(b, [part for part in parts if part.shape[dim]], dim)


def select_scatter(b: Builder, x: Operand, source: Operand, dim: int, index: int) -> Operand:
    dim %= x.rank
    index %= x.shape[dim]
    return slice_scatter(b, x, unsqueeze(b, source, dim), dim, index, index + 1)


MOVEMENT: dict[OpOverload, Rule] = {
    aten.reshape.default: reshape,
    aten.view.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.view_as.default: _like,
    aten.reshape_as.default: _like,
    aten.flatten.using_ints: _flatten,
    aten.ravel.default: _flatten,
    aten.unflatten.int: _unflatten,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.unsqueeze.default: unsqueeze,
    aten.permute.default: permute,
    aten.transpose.int: _transpose,
    aten.swapaxes.default: _transpose,
    aten.swapdims.default: _transpose,
    aten.t.default: _reverse,
    aten.numpy_T.default: _reverse,
    aten.mT.default: lambda b, x: _transpose(b, x, -2, -1),
    aten.movedim.int: _move,
    aten.movedim.intlist: _move,
    aten.moveaxis.int: _move,
    aten.moveaxis.intlist: _move,
    aten.slice.Tensor: cut,
    aten.narrow.default: _narrow,
    aten.select.int: select,
    aten.chunk.default: _chunk,
    aten.split.Tensor: _split_every,
    aten.split.sizes: split,
    aten.split_with_sizes.default: split,
    aten.tensor_split.sections: _tensor_split,
    aten.unbind.int: _unbind,
    aten.cat.default: cat,
    aten.concat.default: cat,
    aten.concatenate.default: cat,
    aten.stack.default: stack,
    aten.hstack.default: _stack_flat(1),
    aten.vstack.default: _stack_flat(0),
    aten.expand.default: expand,
    aten.expand_as.default: _expand_as,
    aten.broadcast_to.default: expand,
    aten.repeat.default: _repeat,
    aten.tile.default: _repeat,
    aten.repeat_interleave.self_int: _repeat_interleave,
    aten.roll.default: _roll,
    aten.flip.default: _flip,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: _constant_pad,
    aten.reflection_pad2d.default: _pad_by("reflect"),
    aten.replication_pad2d.default: _pad_by("replicate"),
    aten.channel_shuffle.default: _channel_shuffle,
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.contiguous.default: same,
    aten.clone.default: same,
    aten.alias.default: same,
    aten.detach.default: same,
    aten.lift_fresh.default: same,
    aten.lift_fresh_copy.default: same,
    aten.positive.default: same,
}

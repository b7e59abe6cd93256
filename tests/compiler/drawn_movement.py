"""Calls of the ATen overloads that move elements."""

from __future__ import annotations

from itertools import pairwise

import torch
from drawing import ANY, FLOATS, WHOLE, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten


def _reshape(name: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any()
        sizes = d.factors(x.numel())
        if sizes and d.flag():
            sizes[d.number(0, len(sizes) - 1)] = -1
        return {"self": x, name: sizes}

    return draw


def _reshape_like(d: Draw) -> Arguments:
    x = d.any()
    return {"self": x, "other": d.tensor(d.factors(x.numel()))}


def _flatten(d: Draw) -> Arguments:
    x = d.any()
    if not x.ndim:
        return {"self": x}
    start = d.number(0, x.ndim - 1)
    end = d.number(start, x.ndim - 1)
    return {"self": x, "start_dim": start - d.pick(0, x.ndim), "end_dim": end - d.pick(0, x.ndim)}


def _unflatten(d: Draw) -> Arguments:
    x = d.any(1)
    dim = d.dim(x)
    sizes = d.factors(x.shape[dim]) or [1]
    if d.flag():
        sizes[d.number(0, len(sizes) - 1)] = -1
    return {"self": x, "dim": dim, "sizes": sizes}


def _squeezable(d: Draw) -> Tensor:
    return d.tensor([d.pick(1, 1, 3) for _ in range(d.number(0, 4))], ANY)


def _unsqueeze(d: Draw) -> Arguments:
    x = d.any(0, 3)
    return {"self": x, "dim": d.number(-x.ndim - 1, x.ndim)}


def _permute(d: Draw) -> Arguments:
    x = d.any()
    order = d.random.sample(range(x.ndim), x.ndim)
    return {"self": x, "dims": [dim - d.pick(0, x.ndim) for dim in order]}


def _two_dims(first: str, second: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any()
        return {"self": x, first: d.dim(x), second: d.dim(x)}

    return draw


def _move_many(d: Draw) -> Arguments:
    x = d.any(1)
    source = d.dims(x, 1)
    target = [dim - d.pick(0, x.ndim) for dim in d.random.sample(range(x.ndim), len(source))]
    return {"self": x, "source": source, "destination": target}


def _slice(d: Draw) -> Arguments:
    x = d.any(1)
    ends = [None, -9, -2, -1, 0, 1, 2, 3, 9, (1 << 63) - 1]
    return {"self": x, "dim": d.dim(x), "start": d.pick(*ends[:-1]), "end": d.pick(*ends), "step": d.number(1, 3)}


def _narrow(d: Draw) -> Arguments:
    x = d.any(1)
    dim = d.dim(x)
    size = x.shape[dim]
    start = d.number(0, size)
    negative = start - size if start < size else start
    return {"self": x, "dim": dim, "start": d.pick(start, negative), "length": d.number(0, size - start)}


def _select(d: Draw) -> Arguments:
    x = d.any(1)
    dim = d.dim(x)
    return {"self": x, "dim": dim, "index": d.number(-x.shape[dim], x.shape[dim] - 1)}


def _parts(name: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(1)
        return {"self": x, name: d.number(1, 5), "dim": d.dim(x)}

    return draw


def _sizes(name: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(1)
        dim = d.dim(x)
        cuts = sorted(d.number(0, x.shape[dim]) for _ in range(d.number(0, 2)))
        ends = [0, *cuts, x.shape[dim]]
        return {"self": x, name: [b - a for a, b in pairwise(ends)], "dim": dim}

    return draw


def _cat(d: Draw) -> Arguments:
    x = d.any(1)
    dim = d.dim(x)
    parts = [x]
    for _ in range(d.number(0, 2)):
        shape = list(x.shape)
        shape[dim] = d.number(0, 3)
        parts.append(d.tensor(shape, ANY))
    if d.number(0, 4) == 0:
        parts.insert(d.number(0, len(parts)), torch.zeros(0))
    return {"tensors": parts, "dim": dim}


def _stack(d: Draw) -> Arguments:
    x = d.any(0, 3)
    parts = [x, *[d.tensor(x.shape, ANY) for _ in range(d.number(0, 2))]]
    return {"tensors": parts, "dim": d.number(-x.ndim - 1, x.ndim)}


def _stack_flat(axis: int) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any()
        parts = [x]
        for _ in range(d.number(0, 2)):
            shape = list(x.shape)
            if x.ndim > axis or (axis == 1 and x.ndim == 1):
                shape[min(axis, x.ndim - 1)] += d.number(0, 2) if x.ndim != 1 or axis == 1 else 0
            parts.append(d.tensor(shape, ANY))
        return {"tensors": parts}

    return draw


def _expand(d: Draw) -> Arguments:
    x = d.tensor([d.pick(1, 3) for _ in range(d.number(0, 3))], ANY)
    sizes = [d.pick(-1, size) if size != 1 else d.pick(-1, 1, 4) for size in x.shape]
    return {"self": x, "size": [*(d.number(1, 3) for _ in range(d.number(0, 2))), *sizes]}


def _expand_like(d: Draw) -> Arguments:
    other = d.any()
    return {"self": d.tensor(d.broadcast(other.shape), ANY), "other": other}


def _repeat(d: Draw) -> Arguments:
    x = d.any(0, 3)
    return {"self": x, "repeats": [d.number(1, 3) for _ in range(x.ndim + d.number(0, 2))]}


def _tile(d: Draw) -> Arguments:
    x = d.any(0, 3)
    return {"self": x, "dims": [d.number(1, 3) for _ in range(d.number(0, 4))]}


def _repeat_interleave(d: Draw) -> Arguments:
    x = d.any(1)
    return {"self": x, "repeats": d.number(1, 3), "dim": d.pick(None, d.dim(x))}


def _roll(d: Draw) -> Arguments:
    x = d.any(1)
    dims = d.dims(x, 1) if d.flag() else []
    return {"self": x, "shifts": [d.number(-5, 5) for _ in dims or [0]], "dims": dims}


def _flip(d: Draw) -> Arguments:
    x = d.any()
    return {"self": x, "dims": d.dims(x)}


def _constant_pads(d: Draw, x: Tensor) -> list[int]:
    pads: list[int] = []
    for size in reversed(x.shape[x.ndim - d.number(0, x.ndim) :]):
        before = d.number(-1, 2)
        pads += [before, d.number(-1 if size + before > 1 else 0, 2)] if size + before >= 1 else [0, 0]
    return pads


def _constant_pad(name: str, *, value: bool = True) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(1)
        return {"self": x, name: _constant_pads(d, x), "value": d.pick(0, 1, d.value())}

    return draw


def _inner_pads(d: Draw, mode: str, count: int) -> tuple[Tensor, list[int]]:
    x = d.tensor([d.number(1, 2) for _ in range(d.pick(1, 2))] + [d.number(3, 5) for _ in range(count)])
    most = 2 if mode == "reflect" else 3
    return x, [d.number(0, most) for _ in range(2 * count)]


def _pad(d: Draw) -> Arguments:
    mode = d.pick("constant", "reflect", "replicate", "circular")
    if mode == "constant":
        x = d.any(1)
        return {"self": x, "pad": _constant_pads(d, x), "mode": mode, "value": d.pick(None, d.value())}
    x, pads = _inner_pads(d, mode, d.number(1, 2))
    return {"self": x, "pad": pads, "mode": mode}


def _pad_2d(mode: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x, pads = _inner_pads(d, mode, 2)
        return {"self": x, "padding": pads}

    return draw


def _channel_shuffle(d: Draw) -> Arguments:
    return {"self": d.tensor((d.number(1, 2), 6, *d.shape(1, 2)), ANY), "groups": d.pick(1, 2, 3, 6)}


def _slice_scatter(d: Draw) -> Arguments:
    given = _slice(d)
    if d.flag():
        given["step"] = 1
    x = given["self"]
    source = aten.slice.Tensor(*given.values())
    return {"self": x, "src": d.tensor(source.shape, [x.dtype]), **{k: v for k, v in given.items() if k != "self"}}


def _select_scatter(d: Draw) -> Arguments:
    given = _select(d)
    x = given["self"]
    source = d.tensor(x.select(given["dim"], given["index"]).shape, [x.dtype])
    return {"self": x, "src": source, "dim": given["dim"], "index": given["index"]}


def _pixels(name: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        factor = d.number(1, 3)
        lead = d.shape(0, 2, 2)
        if name == "upscale_factor":
            shape = (*lead, factor**2 * d.number(1, 2), d.number(1, 4), d.number(1, 4))
        else:
            shape = (*lead, d.number(1, 3), factor * d.number(1, 3), factor * d.number(1, 3))
        return {"self": d.tensor(shape, ANY), name: factor}

    return draw


def _alone(d: Draw) -> Arguments:
    return {"self": d.any()}


def _at_most_matrix(d: Draw) -> Arguments:
    return {"self": d.any(0, 2)}


MOVEMENT: dict[OpOverload, Drawn] = {
    aten.reshape.default: _reshape("shape"),
    aten.view.default: _reshape("size"),
    aten._unsafe_view.default: _reshape("size"),
    aten.view_as.default: _reshape_like,
    aten.reshape_as.default: _reshape_like,
    aten.flatten.using_ints: _flatten,
    aten.ravel.default: _alone,
    aten.unflatten.int: _unflatten,
    aten.squeeze.default: lambda d: {"self": _squeezable(d)},
    aten.squeeze.dim: lambda d: {"self": (x := _squeezable(d)), "dim": d.dim(x)},
    aten.squeeze.dims: lambda d: {"self": (x := _squeezable(d)), "dim": d.dims(x)},
    aten.unsqueeze.default: _unsqueeze,
    aten.permute.default: _permute,
    aten.transpose.int: _two_dims("dim0", "dim1"),
    aten.swapaxes.default: _two_dims("axis0", "axis1"),
    aten.swapdims.default: _two_dims("dim0", "dim1"),
    aten.t.default: _at_most_matrix,
    aten.numpy_T.default: _at_most_matrix,
    aten.mT.default: lambda d: {"self": d.any(2)},
    aten.movedim.int: _two_dims("source", "destination"),
    aten.movedim.intlist: _move_many,
    aten.moveaxis.int: _two_dims("source", "destination"),
    aten.moveaxis.intlist: _move_many,
    aten.slice.Tensor: _slice,
    aten.narrow.default: _narrow,
    aten.select.int: _select,
    aten.chunk.default: _parts("chunks"),
    aten.split.Tensor: _parts("split_size"),
    aten.split.sizes: _sizes("split_size"),
    aten.split_with_sizes.default: _sizes("split_sizes"),
    aten.tensor_split.sections: _parts("sections"),
    aten.unbind.int: lambda d: {"self": (x := d.any(1)), "dim": d.dim(x)},
    aten.cat.default: _cat,
    aten.concat.default: _cat,
    aten.concatenate.default: _cat,
    aten.stack.default: _stack,
    aten.hstack.default: _stack_flat(1),
    aten.vstack.default: _stack_flat(0),
    aten.expand.default: _expand,
    aten.expand_as.default: _expand_like,
    aten.broadcast_to.default: _expand,
    aten.repeat.default: _repeat,
    aten.tile.default: _tile,
    aten.repeat_interleave.self_int: _repeat_interleave,
    aten.roll.default: _roll,
    aten.flip.default: _flip,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _constant_pad("pad"),
    aten.reflection_pad2d.default: _pad_2d("reflect"),
    aten.replication_pad2d.default: _pad_2d("replicate"),
    aten.channel_shuffle.default: _channel_shuffle,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.pixel_shuffle.default: _pixels("upscale_factor"),
    aten.pixel_unshuffle.default: _pixels("downscale_factor"),
    **dict.fromkeys(
        (
            aten.contiguous.default,
            aten.clone.default,
            aten.alias.default,
            aten.detach.default,
            aten.lift_fresh.default,
            aten.lift_fresh_copy.default,
        ),
        _alone,
    ),
    aten.positive.default: lambda d: {"self": d.any(dtypes=FLOATS + WHOLE)},
}

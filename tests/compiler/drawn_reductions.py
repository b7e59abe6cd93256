"""Calls of the ATen overloads that reduce, index and make tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from drawing import ANY, BOOL, FLOATS, WHOLE, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten
NUMBERS = FLOATS + WHOLE


def _whole(dtypes: Sequence[torch.dtype], *, dtype: bool = False, least: int = 0) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(least, dtypes=dtypes)
        return {"self": x} | ({"dtype": d.pick(None, *FLOATS)} if dtype else {})

    return draw


def _over_dims(dtypes: Sequence[torch.dtype], *, dtype: bool = False, none: bool = False, least: int = 0) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=dtypes)
        dims = d.dims(x, least)
        given: Arguments = {"self": x, "dim": d.pick(None, dims) if none else dims, "keepdim": d.flag()}
        return given | ({"dtype": d.pick(None, *FLOATS)} if dtype else {})

    return draw


def _over_dim(dtypes: Sequence[torch.dtype], *, keepdim: bool = True, dtype: bool = False, none: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=dtypes)
        given: Arguments = {"self": x, "dim": d.pick(None, d.dim(x)) if none else d.dim(x)}
        given |= {"keepdim": d.flag()} if keepdim else {}
        return given | ({"dtype": d.pick(None, *FLOATS)} if dtype else {})

    return draw


def _spread_of_all(d: Draw) -> Arguments:
    return {"self": d.tensor((2, *d.shape(0, 2))), "unbiased": d.flag()}


def _spread(*, by_correction: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.tensor([d.number(2, 4) for _ in range(d.number(1, 4))])
        given: Arguments = {"self": x, "dim": d.pick(None, d.dims(x, 1))}
        if by_correction:
            return given | {"correction": d.pick(None, 0, 1, 0.5), "keepdim": d.flag()}
        return given | {"unbiased": d.flag(), "keepdim": d.flag()}

    return draw


_ORDERS = (2, 1, 3, 0, 0.5, math.inf, -math.inf, 2.0)


def _vector_norm(d: Draw) -> Arguments:
    x = d.any(dtypes=FLOATS)
    return {"self": x, "ord": d.pick(*_ORDERS), "dim": d.pick(None, d.dims(x)), "keepdim": d.flag()}


def _norm(d: Draw) -> Arguments:
    x = d.any(1, dtypes=FLOATS)
    dim = d.pick(None, [d.dim(x)], d.dims(x, 1)[:2])
    order = d.pick(*_ORDERS) if (dim is None and x.ndim < 3) or (dim is not None and len(dim) < 3) else None
    return {"self": x, "ord": d.maybe(order), "dim": dim, "keepdim": d.flag()}


def _norm_over(d: Draw) -> Arguments:
    x = d.any(dtypes=FLOATS)
    return {"self": x, "p": d.pick(None, *_ORDERS), "dim": d.dims(x), "keepdim": d.flag()}


def _log_sum_exp(d: Draw) -> Arguments:
    x = d.any(dtypes=FLOATS)
    if d.number(0, 3) == 0:
        x = torch.where(d.tensor(x.shape, BOOL), x, -math.inf)
    return {"self": x, "dim": d.dims(x), "keepdim": d.flag()}


REDUCTION: dict[OpOverload, Drawn] = {
    aten.mean.default: _whole(FLOATS, dtype=True),
    aten.sum.default: _whole(ANY, dtype=True),
    aten.mean.dim: _over_dims(FLOATS, dtype=True, none=True),
    aten.sum.dim_IntList: _over_dims(ANY, dtype=True, none=True),
    aten.prod.dim_int: _over_dim(ANY, dtype=True),
    aten.cumsum.default: _over_dim(ANY, keepdim=False, dtype=True),
    aten.amax.default: _over_dims(ANY),
    aten.amin.default: _over_dims(ANY),
    aten.any.default: _whole(ANY),
    aten.all.default: _whole(ANY),
    aten.any.dim: _over_dim(ANY),
    aten.all.dim: _over_dim(ANY),
    aten.any.dims: _over_dims(ANY, none=True),
    aten.all.dims: _over_dims(ANY, none=True),
    aten.max.default: _whole(ANY),
    aten.min.default: _whole(ANY),
    aten.max.dim: _over_dim(ANY),
    aten.min.dim: _over_dim(ANY),
    aten.argmax.default: _over_dim(NUMBERS, none=True),
    aten.argmin.default: _over_dim(NUMBERS, none=True),
    aten.var.default: _spread_of_all,
    aten.std.default: _spread_of_all,
    aten.var.dim: _spread(by_correction=False),
    aten.std.dim: _spread(by_correction=False),
    aten.var.correction: _spread(by_correction=True),
    aten.std.correction: _spread(by_correction=True),
    aten.var_mean.correction: _spread(by_correction=True),
    aten.logsumexp.default: _log_sum_exp,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.linalg_norm.default: _norm,
    aten.norm.Scalar: lambda d: {"self": d.any(dtypes=FLOATS), "p": d.pick(*_ORDERS)},
    aten.norm.ScalarOpt_dim: _norm_over,
    aten.frobenius_norm.dim: lambda d: {"self": (x := d.any(dtypes=FLOATS)), "dim": d.dims(x)[:2], "keepdim": d.flag()},
}


def _places(d: Draw, size: int, shape: Sequence[int], *, negative: bool = False) -> Tensor:
    low = -size if negative else 0
    wanted = d.pick(torch.int64, torch.int32)
    return torch.tensor([d.number(low, size - 1) for _ in range(math.prod(shape))]).reshape(tuple(shape)).to(wanted)


def _index(d: Draw) -> Arguments:
    """Integers and masks over some dimensions, in any order, with free dimensions between."""
    x = d.any(1)
    shape = d.shape(0, 2, 3)
    indices: list[Tensor | None] = []
    at = 0
    while at < x.ndim:
        kind = d.pick("free", "places", "mask" if len(shape) == 1 else "places")
        if kind == "free":
            indices.append(None)
            at += 1
        elif kind == "places":
            indices.append(_places(d, x.shape[at], [d.pick(1, s) for s in shape], negative=True))
            at += 1
        else:
            width = d.number(1, x.ndim - at)
            mask = _mask(d, x.shape[at : at + width], shape[0])
            indices.append(mask if mask is not None else None)
            at += width if mask is not None else 1
    if all(index is None for index in indices):
        indices[0] = _places(d, x.shape[0], shape)
    return {"self": x, "indices": indices}


def _mask(d: Draw, sizes: Sequence[int], count: int) -> Tensor | None:
    """A mask with so many places, if there are as many."""
    total = math.prod(sizes)
    if count > total:
        return None
    mask = torch.zeros(total, dtype=torch.bool)
    mask[d.random.sample(range(total), count)] = True
    return mask.reshape(tuple(sizes))


def _index_select(d: Draw) -> Arguments:
    x = d.any()
    dim = d.dim(x)
    size = x.shape[dim] if x.ndim else 1
    return {"self": x, "dim": dim, "index": _places(d, size, [d.number(1, 4)])}


def _gather(d: Draw) -> Arguments:
    x = d.any()
    dim = d.dim(x)
    shape = [d.number(1, size) for size in x.shape]
    if shape:
        shape[dim] = d.number(1, 4)
    index = _places(d, x.shape[dim] if x.ndim else 1, shape).long()
    return {"self": x, "dim": dim, "index": index}


def _embedding(d: Draw) -> Arguments:
    rows = d.number(1, 5)
    given = {"weight": d.tensor((rows, d.number(1, 4))), "indices": _places(d, rows, d.shape(0, 3))}
    return given | {"padding_idx": d.pick(-1, 0), "scale_grad_by_freq": d.flag()}


INDEXING: dict[OpOverload, Drawn] = {
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.gather.default: _gather,
    aten.embedding.default: _embedding,
}


def _new(fill: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        given: Arguments = {"self": d.any(), "size": list(d.shape())}
        return given | ({"fill_value": d.number(0, 1)} if fill else {}) | {"dtype": d.maybe(d.pick(*ANY))}

    return draw


def _like(fill: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        return {"self": d.any()} | ({"fill_value": d.number(0, 1)} if fill else {}) | {"dtype": d.maybe(d.pick(*ANY))}

    return draw


def _triangle(d: Draw) -> Arguments:
    return {"self": d.any(2), "diagonal": d.number(-3, 3)}


CREATION: dict[OpOverload, Drawn] = {
    aten.new_zeros.default: _new(),
    aten.new_empty.default: _new(),
    aten.new_ones.default: _new(),
    aten.new_full.default: _new(fill=True),
    aten.zeros_like.default: _like(),
    aten.empty_like.default: _like(),
    aten.ones_like.default: _like(),
    aten.full_like.default: _like(fill=True),
    aten.tril.default: _triangle,
    aten.triu.default: _triangle,
}

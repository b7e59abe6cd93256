"""Calls that sort, and calls that write at computed places."""

from __future__ import annotations

import torch
from drawing import FLOATS, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten


def _distinct(d: Draw) -> Tensor:
    """Elements of which no two are equal, so that there is one order."""
    x = d.any(dtypes=FLOATS)
    generator = torch.Generator().manual_seed(d.number(0, 1 << 20))
    return (torch.randperm(x.numel(), generator=generator).to(x.dtype) / 2 - 3).reshape(x.shape)


def _sort(*, stable: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any() if stable else _distinct(d)
        given: Arguments = {"self": x}
        return given | ({"stable": True} if stable else {}) | {"dim": d.dim(x), "descending": d.flag()}

    return draw


def _top(d: Draw) -> Arguments:
    x = _distinct(d)
    dim = d.dim(x)
    return {"self": x, "k": d.number(1, x.shape[dim] if x.ndim else 1), "dim": dim, "largest": d.flag(), "sorted": True}


def _kth(d: Draw) -> Arguments:
    x = _distinct(d)
    dim = d.dim(x)
    return {"self": x, "k": d.number(1, x.shape[dim] if x.ndim else 1), "dim": dim, "keepdim": d.flag()}


def _places(d: Draw, size: int, shape: tuple[int, ...], *, distinct_along: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(d.number(0, 1 << 20))
    if distinct_along is None:
        return torch.randint(size, shape, generator=generator)
    scores = torch.rand((*shape[:distinct_along], size, *shape[distinct_along + 1 :]), generator=generator)
    return scores.argsort(distinct_along).narrow(distinct_along, 0, shape[distinct_along])


def _scatter(*, combined: bool = False, reductions: tuple[str, ...] = (), value: bool = False) -> Drawn:
    """Updates go to places that differ, unless they are combined: ATen leaves open which of two stays."""

    def draw(d: Draw) -> Arguments:
        x = d.any(1, dtypes=(*FLOATS, torch.int64))
        dim = d.dim(x) % x.ndim
        shape = [d.number(1, size) for size in x.shape]
        meets = combined or bool(reductions)
        shape[dim] = d.number(1, 5) if meets else shape[dim]
        index = _places(d, x.shape[dim], tuple(shape), distinct_along=None if meets else dim)
        given: Arguments = {"self": x, "dim": dim, "index": index}
        if value:
            return given | {"value": d.number(-2, 2)}
        given["src"] = d.tensor([size + d.number(0, 1) for size in shape], [x.dtype])
        return given | ({"reduce": d.pick(*reductions)} if reductions else {})

    return draw


def _slices(*, combined: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(1, dtypes=(*FLOATS, torch.int64))
        dim = d.dim(x)
        size = x.shape[dim]
        count = d.number(1, 4 if combined else size)
        index = _places(d, size, (count,), distinct_along=None if combined else 0)
        shape = list(x.shape)
        shape[dim] = count
        given: Arguments = {"self": x, "dim": dim, "index": index, "source": d.tensor(shape, [x.dtype])}
        return given | ({"alpha": d.pick(1, 2)} if combined else {})

    return draw


def _put(d: Draw) -> Arguments:
    x = d.any(1, dtypes=(*FLOATS, torch.int64))
    if d.number(0, 3) == 0:
        mask = d.tensor(x.shape[: d.number(1, x.ndim)], [torch.bool])
        return {"self": x, "indices": [mask], "values": d.tensor((), [x.dtype]), "accumulate": False}
    first = d.number(0, x.ndim - 1)
    dims = range(first, d.number(first, x.ndim - 1) + 1)
    accumulate = d.flag()
    shape = tuple(d.number(1, 3) for _ in range(d.number(1, 2))) if accumulate else (1,)
    indices = [_places(d, x.shape[dim], shape) - d.pick(0, x.shape[dim]) for dim in dims]
    whole = (*x.shape[:first], *shape, *x.shape[dims[-1] + 1 :])
    values = d.tensor(d.broadcast(whole), [x.dtype])
    return {"self": x, "indices": [*[None] * first, *indices], "values": values, "accumulate": accumulate}


def _take(d: Draw) -> Arguments:
    x = d.any(1)
    if d.number(0, 3) == 0:
        return {"self": x, "indices": _places(d, x.numel(), d.shape(1, 2)), "dim": None}
    dim = d.dim(x)
    shape = [d.pick(1, size) for size in x.shape]
    shape[dim] = d.number(1, 4)
    return {"self": x, "indices": _places(d, x.shape[dim], tuple(shape)), "dim": dim}


ORDERING: dict[OpOverload, Drawn] = {
    aten.sort.default: _sort(),
    aten.sort.stable: _sort(stable=True),
    aten.argsort.default: _sort(),
    aten.argsort.stable: _sort(stable=True),
    aten.topk.default: _top,
    aten.kthvalue.default: _kth,
    aten.scatter.src: _scatter(),
    aten.scatter.value: _scatter(value=True),
    aten.scatter.reduce: _scatter(reductions=("add", "multiply")),
    aten.scatter_add.default: _scatter(combined=True),
    aten.scatter_reduce.two: _scatter(reductions=("sum", "prod", "amax", "amin", "mean")),
    aten.index_add.default: _slices(combined=True),
    aten.index_copy.default: _slices(combined=False),
    aten.index_put.default: _put,
    aten.take_along_dim.default: _take,
}

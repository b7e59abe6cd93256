"""Sorting, selection, and reading and writing at places that are stored or computed."""

from __future__ import annotations

import torch

from fuzzing.program import Ref
from fuzzing.scope import Move, Scope, Unfit


def along(scope: Scope) -> tuple[Ref, int, int]:
    """A value, one of its dimensions, counted from either end, and how many elements it has there."""
    x = scope.pick()
    dim, rank = scope.axis(x), len(scope.shape(x))
    return x, dim - rank if scope.chance(0.3) else dim, scope.shape(x)[dim]


def sort(scope: Scope) -> None:
    x, dim, _ = along(scope)
    if scope.chance(0.4):
        scope.emit("sort", x, dim, scope.chance(0.5))
        return
    places = scope.emit("argsort", x, dim, scope.chance(0.5))
    if scope.chance(0.6):
        scope.emit("take_along_dim", like(scope, x), places, dim)


def like(scope: Scope, x: Ref) -> Ref:
    """A value of the same shape, perhaps the same."""
    return scope.choose([value for value in scope.values() if scope.shape(value) == scope.shape(x)])


def ranked(scope: Scope) -> None:
    """The order of the last dimension, or the first few of it, the operator of the dialect, and what is read by it."""
    x = scope.pick()
    if not scope.shape(x):
        raise Unfit("a scalar")
    few = [scope.random.randint(1, scope.shape(x)[-1])] if scope.chance(0.5) else []
    places = scope.emit("lvc.argsort", x, scope.chance(0.5), *few)
    if scope.chance(0.7):
        scope.emit("gather", like(scope, x), len(scope.shape(x)) - 1, places)


def largest(scope: Scope) -> None:
    x, dim, size = along(scope)
    k = scope.random.randint(1, size)
    way = scope.random.random()
    if way < 0.35:
        scope.emit("topk", x, k, dim, scope.chance(0.7))
    elif way < 0.7:
        scope.emit("gathered_topk", x, k, dim, scope.chance(0.7))
    else:
        scope.emit("kthvalue", x, k, dim, scope.chance(0.5))


def places(scope: Scope, size: int, *shape: int, least: int = 0) -> Ref:
    """Integers from ``least`` to below ``size``: stored, or computed from a value with as many elements or more."""
    if not size:
        raise Unfit("no places")
    count = int(torch.Size(shape).numel())
    rich = scope.values(lambda spec: spec.dtype is torch.float32 and spec.elements >= count)
    if not rich or scope.chance(0.4):
        return scope.store(f"index{size}", *shape, dtype=torch.int64)
    x = scope.choose(rich)
    flat = scope.emit("reshape", x, [-1])
    flat = scope.emit("slice", flat, 0, 0, count, 1)
    near = scope.emit("clamp", scope.emit("mul", scope.emit("abs", flat), 1.7), 0, size - 1)
    if least and scope.chance(0.5):
        near = scope.emit("neg", scope.emit("clamp", near, 0, -least))
    return scope.emit("reshape", scope.emit("to", near, torch.int64), list(shape))


def take(scope: Scope) -> None:
    """Elements at places along a dimension; a size of one in the others is broadcast."""
    x, dim, size = along(scope)
    shape = [1 if scope.chance(0.3) else length for length in scope.shape(x)]
    shape[dim] = scope.either(1, 2, 4, size)
    scope.emit("take_along_dim", x, places(scope, size, *shape), dim)


def indexed(scope: Scope) -> None:
    """``x[:, i, j]``: neighbouring dimensions, or a single one, negative places among them."""
    x, given, shape, _ = indices(scope)
    y = scope.emit("index", x, given)
    if len(shape) == 2 and scope.chance(0.3):
        scope.emit("add", y, 1)


def indices(scope: Scope) -> tuple[Ref, list[Ref | None], list[int], int]:
    """A value with indices of neighbouring dimensions; the shape of the indices, and the first dimension."""
    x = scope.pick()
    sizes, first = scope.shape(x), scope.axis(x)
    count = min(len(sizes) - first, scope.either(1, 1, 2))
    shape = scope.either([1], [3], [4], [2, 3])
    found: list[Ref | None] = [None] * first
    for size in sizes[first : first + count]:
        own = shape if scope.chance(0.7) or not found or found[-1] is None else [1] * len(shape)
        found.append(places(scope, size, *own, least=-size))
    return x, found, shape, first


def put(scope: Scope) -> None:
    """``x[:, i] = values``; without accumulation no place is written twice, since PyTorch leaves open which stays."""
    if scope.chance(0.5):
        x, given, shape, first = indices(scope)
        whole = [*scope.shape(x)[:first], *shape, *scope.shape(x)[len(given) :]]
        scope.emit("accumulated", x, given, updates(scope, whole))
        return
    x = scope.pick()
    first = scope.axis(x)
    size = scope.shape(x)[first]
    count = scope.random.randint(1, size)
    order = scope.store(f"order{size}", count, dtype=torch.int64)
    whole = [*scope.shape(x)[:first], count, *scope.shape(x)[first + 1 :]]
    scope.emit("index_put", x, [*[None] * first, order], updates(scope, whole))


def updates(scope: Scope, shape: list[int], *, whole: bool = False) -> Ref:
    """Values of a shape, or that broadcast to it unless they must be ``whole``: computed or stored."""
    fitting = [value for value in scope.values() if list(scope.shape(value)) == shape]
    if fitting and scope.chance(0.5):
        return scope.choose(fitting)
    rich = scope.values(lambda spec: spec.dtype is torch.float32 and spec.elements >= torch.Size(shape).numel())
    if rich and scope.chance(0.6):
        part = scope.emit("reshape", scope.choose(rich), [-1])
        part = scope.emit("slice", part, 0, 0, torch.Size(shape).numel(), 1)
        return scope.emit("reshape", part, shape)
    return scope.store("const", *(size if whole or scope.chance(0.8) else 1 for size in shape))


def scatter(scope: Scope) -> None:
    """Updates at places along a dimension, fewer than there are in the others now and then."""
    x, dim, size = along(scope)
    shape = [length if scope.chance(0.8) else scope.random.randint(1, length) for length in scope.shape(x)]
    shape[dim] = scope.either(1, 2, size)
    where = places(scope, size, *shape)
    way = scope.random.randrange(6)
    if way == 0:
        scope.emit("scatter_value", x, dim, where, scope.either(0.0, 1.5, -2.0))
        return
    values = updates(scope, shape, whole=True)
    if way == 1:
        scope.emit("scatter", x, dim, where, values)
    elif way == 2:
        scope.emit("scatter_add", x, dim, where, values)
    elif way == 3:
        scope.emit("scatter_with", x, dim, where, values, scope.either("add", "multiply"))
    else:
        scope.emit("scatter_reduce", x, dim, where, values, scope.either("sum", "prod", "amax", "amin"))


def written(scope: Scope) -> None:
    """Writing along the last dimension, the operator of the dialect."""
    x = scope.pick()
    shape = list(scope.shape(x))
    if not shape:
        raise Unfit("a scalar")
    size, shape[-1] = shape[-1], scope.either(1, 2, 5, shape[-1])
    where = places(scope, size, *shape)
    values = updates(scope, shape, whole=True)
    scope.emit("lvc.scatter", x, where, values, scope.either("none", "none", "sum", "prod", "amax", "amin"))


def whole_slices(scope: Scope) -> None:
    x, dim, size = along(scope)
    shape = list(scope.shape(x))
    if scope.chance(0.5):
        shape[dim] = scope.either(1, 2, 5)
        source = updates(scope, shape, whole=True)
        scope.emit("index_add", x, dim, places(scope, size, shape[dim]), source, scope.either(1, 1, 0.5, -2))
        return
    shape[dim] = scope.random.randint(1, size)
    order = scope.store(f"order{size}", shape[dim], dtype=torch.int64)
    scope.emit("index_copy", x, dim, order, updates(scope, shape, whole=True))


def boxes(scope: Scope) -> None:
    """A head of fixed size: boxes in order of their scores, those that others hide taken away."""
    x = scope.pick(3) if scope.chance(0.3) else scope.pick()
    if scope.shape(x)[-1:] != (4,) or len(scope.shape(x)) < 2:
        count = scope.known[x.name].elements // 4
        if not count:
            raise Unfit("no box")
        x = scope.emit("slice", scope.emit("reshape", x, [-1]), 0, 0, min(count, 24) * 4, 1)
        x = scope.emit("reshape", x, [-1, 4])
    if scope.chance(0.7):
        last = len(scope.shape(x)) - 1
        corner = scope.emit("slice", x, last, 0, 2, 1)
        size = scope.emit("add", scope.emit("abs", scope.emit("slice", x, last, 2, 4, 1)), 1.0)
        x = scope.emit("cat", [corner, scope.emit("add", corner, size)], last)
    scores = scope.emit("mean", x, [-1], False)
    valid = scope.emit("gt", scores, scope.emit("mean", scores, [-1], True))
    kept = scope.emit("lvc.nms", x, valid, scope.either(0.1, 0.3, 0.5))
    if scope.chance(0.7):
        scope.emit("where", kept, scores, scope.store("const"))


def searched(scope: Scope) -> None:
    """Maps resized to computed sizes, and the largest element of each."""
    x = scope.pick(4)
    sizes = scope.emit("add", places(scope, 30, scope.shape(x)[0], 2), 1)
    found = scope.emit("lvc.peaks", x, sizes)
    if scope.chance(0.5):
        scope.emit("slice", found, 2, 2, 3, 1)


def regions(scope: Scope) -> None:
    """Cells of boxes in one of two maps, the second of half the size."""
    x = scope.image()
    images, _, height, width = scope.shape(x)
    if min(height, width) < 2:
        raise Unfit("a map of one pixel has no half")
    half = scope.emit("avg_pool2d", x, [2, 2], [2, 2])
    count = scope.random.randint(1, 6)
    corners = scope.emit("mul", scope.store("lows", count, 2), float(max(height, width)))
    sides = scope.emit("add", scope.emit("abs", scope.store("sides", count, 2)), 1.0)
    boxes = scope.emit("cat", [corners, scope.emit("add", corners, sides)], 1)
    image = scope.emit("to", places(scope, images, count, 1), torch.float32)
    rois = scope.emit("cat", [image, boxes], 1)
    cells = [scope.random.randint(1, 3), scope.random.randint(1, 3)]
    samples, aligned = scope.either(1, 2, 2), scope.chance(0.5)
    scope.emit("lvc.roi_align", [x, half], rois, places(scope, 2, count), [1.0, 0.5], cells, samples, aligned)


def windowed(scope: Scope) -> None:
    x, dim, size = along(scope)
    scope.emit("unfold", x, dim, scope.random.randint(1, size), scope.either(1, 1, 2, 3))


MOVES: dict[Move, float] = {
    sort: 1,
    ranked: 0.7,
    largest: 1,
    take: 0.7,
    indexed: 1,
    put: 1,
    scatter: 1.2,
    written: 0.7,
    whole_slices: 0.7,
    boxes: 0.7,
    searched: 0.5,
    regions: 0.5,
    windowed: 0.7,
}

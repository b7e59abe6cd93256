"""Movement: parts, joins inside joins, chains of reshape, permute and roll, as networks have them."""

from __future__ import annotations

import math

import torch

from fuzzing.moves_layers import convolve, divisors
from fuzzing.program import Ref
from fuzzing.scope import Move, Scope, Unfit


def reshape(scope: Scope) -> None:
    """Other sizes for the same elements: dimensions merged, split, added and removed."""
    x = scope.pick()
    scope.emit("reshape", x, resized(scope, list(scope.shape(x))))


def resized(scope: Scope, shape: list[int]) -> list[int]:
    for _ in range(scope.either(1, 1, 2)):
        way, at = scope.random.randrange(4), scope.random.randrange(len(shape) or 1)
        if way == 0 and at + 1 < len(shape):
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif way == 1 and shape and len(shape) < 6:
            part = scope.either(*divisors(shape[at]))
            shape[at : at + 1] = scope.either([part, shape[at] // part], [shape[at] // part, part])
        elif way == 2 and len(shape) < 6:
            shape.insert(at, 1)
        elif 1 in shape:
            shape.remove(1)
    if shape and scope.chance(0.2):
        shape[scope.random.randrange(len(shape))] = -1
    return shape


def permute(scope: Scope) -> None:
    x = scope.pick()
    rank = len(scope.shape(x))
    if rank < 2:
        raise Unfit("one axis")
    dims = scope.random.sample(range(rank), rank)
    scope.emit("permute", x, [dim - rank for dim in dims] if scope.chance(0.2) else dims)


def chain(scope: Scope) -> None:
    """Several movements in a row, the last of which may flatten."""
    for _ in range(scope.random.randint(2, 4)):
        scope.either(reshape, permute, roll, permute)(scope)
    x = scope.pick()
    if len(scope.shape(x)) > 2 and scope.chance(0.5):
        scope.emit("reshape", x, [scope.shape(x)[0], -1])


def part(scope: Scope, x: Ref, dim: int | None = None) -> Ref:
    """A slice; as the part of a split where it has a step of one, for importers that spell it so."""
    dim = scope.axis(x) if dim is None else dim
    size = scope.shape(x)[dim]
    start = scope.random.randrange(size)
    end = scope.random.randint(start + 1, size)
    step = scope.either(1, 1, 1, 2, 3)
    if scope.chance(0.3):
        count = scope.either(*divisors(size))
        place = scope.random.randrange(count)
        start, end, step = place * size // count, (place + 1) * size // count, 1
    sizes = [n for n in (start, end - start, size - end) if n]
    hint = {"sizes": sizes, "part": 1 if start else 0} if step == 1 and scope.chance(0.6) else {}
    if not hint and scope.chance(0.2):
        start, end = start - size, scope.either(end - size if end < size else 2**63 - 1, end)
    return scope.emit("slice", x, dim, start, end, step, hint=hint)


def slices(scope: Scope) -> None:
    x = scope.pick()
    dim = scope.axis(x)
    for _ in range(scope.either(1, 1, 2, 3)):
        part(scope, x, dim if scope.chance(0.6) else None)


def cat(scope: Scope) -> None:
    """Values, parts of values and stored tensors that agree in all but one axis."""
    x = scope.pick()
    dim, shape = scope.axis(x), scope.shape(x)
    scope.emit("cat", joined(scope, x, dim), dim if scope.chance(0.7) else dim - len(shape))


def joined(scope: Scope, x: Ref, dim: int) -> list[Ref]:
    """Operands of a concatenation with ``x`` among them."""
    shape = scope.shape(x)

    def rest(value: Ref) -> list[int]:
        return [size for at, size in enumerate(scope.shape(value)) if at != dim]

    fitting = [value for value in scope.values() if len(scope.shape(value)) == len(shape) and rest(value) == rest(x)]
    operands = [x]
    for _ in range(scope.either(1, 1, 2, 3)):
        way = scope.random.random()
        if way < 0.5:
            operands.append(scope.choose(fitting))
        elif way < 0.7:
            operands.append(part(scope, scope.choose(fitting), dim))
        elif way < 0.8:
            sizes = list(shape)
            sizes[dim] = scope.either(1, 2, 3)
            operands.append(scope.store("const", *sizes))
        else:
            operands.append(scope.emit(scope.either("relu", "neg", "sigmoid", "tanh"), scope.choose(fitting)))
    scope.random.shuffle(operands)
    return operands


def nested(scope: Scope) -> None:
    """A concatenation inside another along another axis, an elementwise call between them now and then."""
    x = scope.pick()
    rank = len(scope.shape(x))
    if rank < 2:
        raise Unfit("one axis")
    inner_dim, outer_dim = scope.random.sample(range(rank), 2)
    inner = scope.emit("cat", joined(scope, x, inner_dim), inner_dim)
    if scope.chance(0.3):
        inner = scope.emit(scope.either("relu", "sigmoid"), inner)
    second = scope.emit("cat", joined(scope, x, inner_dim), inner_dim)
    if scope.shape(second) != scope.shape(inner):
        second = part(scope, inner, outer_dim)
    outer = [inner, second]
    scope.random.shuffle(outer)
    scope.emit("cat", outer, outer_dim)
    if scope.chance(0.3):
        scope.emit("cat", [second, inner], scope.either(inner_dim, outer_dim))


def head(scope: Scope) -> None:
    """Flattened convolutions of two scales joined, boxes and scores on top of each other, as detectors do."""
    x = scope.image()
    small = scope.emit("max_pool2d", x, [2, 2], [2, 2])
    rows = []
    for made in (scope.either(2, 4, 5), scope.either(1, 2, 3)):
        flat = []
        for scale in (x, small):
            y = convolve(scope, scale, made, scope.either(1, 3), same=True)
            batch, channels, height, width = scope.shape(y)
            flat.append(scope.emit("reshape", y, [batch, channels, height * width]))
        rows.append(scope.emit("cat", flat, 2))
    if scope.chance(0.5):
        rows[1] = scope.emit("sigmoid", rows[1])
    scope.random.shuffle(rows)
    y = scope.emit("cat", rows, 1)
    if scope.chance(0.4):
        scope.emit("permute", y, [0, 2, 1])


def windows(scope: Scope) -> None:
    """Windows taken apart or put back together, rolled, flattened."""
    x = scope.image()
    n, c, h, w = scope.shape(x)
    a, b = scope.either(*divisors(h)), scope.either(*divisors(w))
    if scope.chance(0.5):
        x = scope.emit("roll", x, [scope.random.randint(-3, 3), scope.random.randint(-3, 3)], [2, 3])
    y = scope.emit("reshape", x, [n, c, h // a, a, w // b, b])
    y = scope.emit("permute", y, scope.either([0, 2, 4, 3, 5, 1], [0, 2, 4, 1, 3, 5]))
    shape = scope.shape(y)
    y = scope.emit("reshape", y, [math.prod(shape[:3]), math.prod(shape[3:5]), shape[5]])
    y = scope.emit("linear", y, scope.store("weight", shape[5], shape[5])) if scope.chance(0.5) else y
    back = scope.emit("reshape", y, list(shape))
    back = scope.emit("permute", back, [0, 1, 3, 2, 4, 5])
    back = scope.emit("reshape", back, [n, shape[1] * shape[3], shape[2] * shape[4], shape[5]])
    if scope.chance(0.7):
        back = scope.emit("roll", back, [scope.random.randint(-3, 3), scope.random.randint(-3, 3)], [1, 2])
    if scope.chance(0.6):
        scope.emit("reshape", back, [n, -1, shape[5]])


def shuffle(scope: Scope) -> None:
    x = scope.image()
    n, c, h, w = scope.shape(x)
    groups = scope.either(*divisors(c))
    y = scope.emit("reshape", x, [n, groups, c // groups, h, w])
    scope.emit("reshape", scope.emit("permute", y, [0, 2, 1, 3, 4]), [n, c, h, w])


def attention(scope: Scope) -> None:
    x = scope.pick(3)
    n, t, c = scope.shape(x)
    heads = scope.either(*divisors(c))
    whole = scope.emit("linear", x, scope.store("weight", 3 * c, c), scope.store("bias", 3 * c))
    whole = scope.emit("permute", scope.emit("reshape", whole, [n, t, 3, heads, c // heads]), [2, 0, 3, 1, 4])
    q, k, v = (
        scope.emit("reshape", scope.emit("slice", whole, 0, i, i + 1), [n, heads, t, c // heads]) for i in range(3)
    )
    scores = scope.emit("matmul", scope.emit("mul", q, (c // heads) ** -0.5), scope.emit("permute", k, [0, 1, 3, 2]))
    mixed = scope.emit("matmul", scope.emit("softmax", scores, -1), v)
    scope.emit("reshape", scope.emit("permute", mixed, [0, 2, 1, 3]), [n, t, c])


def tokens(scope: Scope) -> None:
    """An image as a sequence of tokens."""
    x = scope.image()
    n, c, h, w = scope.shape(x)
    scope.emit("permute", scope.emit("reshape", x, [n, c, h * w]), [0, 2, 1])


def roll(scope: Scope) -> None:
    x = scope.pick()
    dims = scope.random.sample(range(len(scope.shape(x))), min(len(scope.shape(x)), scope.either(1, 2)))
    scope.emit("roll", x, [scope.random.randint(-4, 4) for _ in dims], dims)


def flip(scope: Scope) -> None:
    x = scope.pick()
    rank = len(scope.shape(x))
    scope.emit("flip", x, scope.random.sample(range(rank), min(rank, scope.either(1, 2))))


def expand(scope: Scope) -> None:
    x = scope.pick()
    shape = list(scope.shape(x))
    at = [i for i, size in enumerate(shape) if size == 1]
    if at:
        shape[scope.either(*at)] = scope.either(2, 3, 5)
    if scope.chance(0.3):
        shape.insert(0, scope.either(1, 2))
    scope.emit("expand", x, shape)


def repeat(scope: Scope) -> None:
    x = scope.pick()
    scope.emit("repeat", x, [scope.either(1, 1, 2, 3) for _ in scope.shape(x)])


def pad(scope: Scope) -> None:
    x = scope.image()
    widths = [scope.either(0, 0, 1, 1, 2, 3) for _ in range(scope.either(4, 4, 4, 2))]
    way = scope.random.random()
    if way < 0.15:
        widths = [scope.either(1, 0, -1, 2) for _ in widths]
    if way < 0.6:
        if scope.chance(0.2):
            widths = [*widths[:2], *widths[:2], 0, scope.either(1, 2)]
        scope.emit("constant_pad_nd", x, widths, scope.either(0, 0.0, 1.5, -2.0))
    else:
        scope.emit("pad", x, widths, scope.either("reflect", "replicate"))


def index_select(scope: Scope) -> None:
    x = scope.pick()
    dim = scope.axis(x)
    index = scope.store(f"index{scope.shape(x)[dim]}", scope.either(1, 2, 5), dtype=torch.int64)
    scope.emit("index_select", x, dim, index)


def gather(scope: Scope) -> None:
    x = scope.pick()
    dim, shape = scope.axis(x), list(scope.shape(x))
    size = shape[dim]
    shape[dim] = scope.either(1, 2, 4)
    scope.emit("gather", x, dim, scope.store(f"index{size}", *shape, dtype=torch.int64))


def embedding(scope: Scope) -> None:
    """Rows of a table by integers that are an input."""
    known = scope.values(lambda spec: spec.dtype is torch.int64 and 0 < len(spec.shape) < 4)
    places = scope.choose(known) if known and scope.chance(0.5) else scope.input(2, 5, dtype=torch.int64)
    if not places.name.startswith("x"):
        places = scope.emit("clamp", places, 0, 1)
    scope.emit("embedding", scope.store("const", scope.either(2, 7, 16), scope.either(4, 8, 17)), places)


def pixels(scope: Scope) -> None:
    x = scope.image()
    channels, height, width = scope.shape(x)[1:]
    if channels % 4 == 0 and scope.chance(0.7):
        scope.emit("pixel_shuffle", x, 2)
    else:
        scope.emit("pixel_unshuffle", x, scope.either(*divisors(height, width)))


MOVES: dict[Move, float] = {
    reshape: 2.5,
    permute: 2.5,
    chain: 2,
    slices: 3,
    cat: 4,
    nested: 2.5,
    head: 1.2,
    windows: 1.2,
    shuffle: 1,
    attention: 1,
    tokens: 1,
    roll: 1,
    flip: 0.7,
    expand: 1,
    repeat: 0.7,
    pad: 1.5,
    index_select: 0.7,
    gather: 0.5,
    pixels: 1,
    embedding: 0.3,
}

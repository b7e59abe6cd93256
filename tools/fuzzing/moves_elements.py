"""Arithmetic element by element: broadcast in every position, constants and numbers as operands, truth values."""

from __future__ import annotations

import torch

from fuzzing.program import Ref
from fuzzing.scope import Move, Scope, Unfit

ANYWHERE = ("abs", "neg", "sin", "cos", "atan", "erf", "asinh", "floor", "ceil", "round", "sign", "relu", "sigmoid")
TAMED = ("exp", "tan", "asin", "acos", "sinh", "cosh", "atanh")
POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal", "acosh")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def unary(scope: Scope) -> None:
    scope.emit(scope.either(*ANYWHERE), scope.pick())


def tamed(scope: Scope) -> None:
    """A function of a bounded range, behind what brings values there."""
    inside = scope.emit("clamp", scope.pick(), -0.75, 0.75)
    scope.emit(scope.either(*TAMED), inside)


def positive(scope: Scope) -> None:
    """A function of the positive numbers, behind what makes them so."""
    size = scope.emit("abs", scope.pick())
    scope.emit(scope.either(*POSITIVE), scope.emit("add", size, 1.25))


def other(scope: Scope, x: Ref) -> Ref:
    """A second operand: a value that broadcasts, a stored tensor of a broadcast shape, or a part of the first."""
    shape = scope.shape(x)
    way = scope.random.random()
    if way < 0.45:
        found = [value for value in scope.values() if broadcasts(scope.shape(value), shape)]
        return scope.choose(found)
    if way < 0.75 or not shape:
        kept = [size if scope.chance(0.6) else 1 for size in shape]
        return scope.store("const", *kept[scope.random.randrange(len(kept) + 1) if scope.chance(0.4) else 0 :])
    if way < 0.9:
        return scope.emit(scope.either("mean", "amax", "amin", "sum"), x, [scope.axis(x)], True)
    dim = scope.axis(x)
    start = scope.random.randrange(shape[dim])
    return scope.emit("slice", x, dim, start, start + 1)


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


def binary(scope: Scope) -> None:
    a = scope.pick()
    b = other(scope, a)
    if scope.chance(0.4):
        a, b = b, a
    scope.emit(scope.either("add", "add", "add", "sub", "mul", "mul", "maximum", "minimum"), a, b)


def with_number(scope: Scope) -> None:
    scope.emit(scope.either("add", "sub", "mul", "div"), scope.pick(), scope.either(0, 1, 2, -1, 0.5, 3.0, 1e-3, 255.0))


def scaled_sum(scope: Scope) -> None:
    a = scope.pick()
    scope.emit(scope.either("add", "sub"), a, other(scope, a), alpha=scope.either(2, 0.5, -1))


def quotient(scope: Scope) -> None:
    a = scope.pick()
    below = scope.emit("add", scope.emit("abs", other(scope, a)), 0.75)
    scope.emit(scope.either("div", "div", "remainder", "fmod"), a, below)


def power(scope: Scope) -> None:
    base = scope.emit("add", scope.emit("abs", scope.emit("clamp", scope.pick(), -2, 2)), 0.5)
    scope.emit("pow", base, scope.emit("clamp", other(scope, base), -2, 2))


def condition(scope: Scope) -> Ref:
    """A tensor of truth values: a known one, or a comparison."""
    known = scope.values(lambda spec: spec.dtype is torch.bool)
    if known and scope.chance(0.4):
        return scope.choose(known)
    a = scope.pick()
    b = scope.store("const") if scope.chance(0.4) else other(scope, a)
    return scope.emit(scope.either(*COMPARISONS), a, b)


def logic(scope: Scope) -> None:
    a = condition(scope)
    shape = scope.shape(a)
    fitting = [v for v in scope.values(lambda s: s.dtype is torch.bool) if broadcasts(scope.shape(v), shape)]
    if scope.chance(0.3):
        a = scope.emit("logical_not", a)
    else:
        a = scope.emit(scope.either("logical_and", "logical_or", "logical_xor"), a, scope.choose(fitting))
    if scope.chance(0.5):
        scope.emit("to", a, torch.float32)


def where(scope: Scope) -> None:
    mask = condition(scope)
    fitting = [v for v in scope.values() if broadcasts(scope.shape(v), scope.shape(mask))]
    a = scope.choose(fitting)
    b = scope.store("const") if scope.chance(0.3) else other(scope, a)
    if scope.chance(0.5):
        a, b = b, a
    scope.emit("where", mask, a, b)


def cast(scope: Scope) -> None:
    """Integers become floats; floats become integers and come back."""
    whole = scope.values(lambda spec: not spec.dtype.is_floating_point)
    if whole and scope.chance(0.7):
        scope.emit("to", scope.choose(whole), torch.float32)
        return
    middle = scope.emit("clamp", scope.pick(), -100, 100)
    number = scope.emit("to", middle, scope.either(torch.int64, torch.int32))
    scope.emit("to", number, torch.float32)


def nothing(scope: Scope) -> None:
    """What passes its input on."""
    x = scope.pick()
    if scope.chance(0.5):
        scope.emit("dropout", x, 0.5, False)
    else:
        scope.emit("to", x, torch.float32)


def finite(scope: Scope) -> None:
    scope.emit("to", scope.emit(scope.either("isnan", "isinf"), scope.pick()), torch.float32)


def gate(scope: Scope) -> None:
    """Squeeze and excite."""
    x = scope.image()
    mean = scope.emit("mean", x, [2, 3], True)
    scope.emit("mul", x, scope.emit(scope.either("sigmoid", "hardsigmoid"), mean))


def residual(scope: Scope) -> None:
    """A value and what was made of it, added."""
    x = scope.pick()
    shape = scope.shape(x)
    same = [value for value in scope.values() if scope.shape(value) == shape and value != x]
    y = scope.emit(scope.either("add", "add", "mul", "sub"), x, scope.choose(same))
    if scope.chance(0.5):
        scope.emit("relu", y)


def folded(scope: Scope) -> None:
    """Arithmetic on stored tensors alone, which a compiler does beforehand."""
    x = scope.pick()
    shape = scope.shape(x)
    if not shape:
        raise Unfit("a scalar")
    a = scope.emit(scope.either("sigmoid", "abs", "neg", "exp"), scope.store("const", shape[-1]))
    scope.emit(scope.either("mul", "add"), x, a)


MOVES: dict[Move, float] = {
    unary: 2,
    tamed: 0.7,
    positive: 0.7,
    binary: 5,
    with_number: 2,
    scaled_sum: 0.5,
    quotient: 1,
    power: 0.4,
    logic: 0.7,
    where: 1.2,
    cast: 0.7,
    nothing: 0.5,
    finite: 0.2,
    gate: 1,
    residual: 3,
    folded: 0.5,
}

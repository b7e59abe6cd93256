"""Complex numbers as pairs of real and imaginary parts: what a model computes between a Fourier transform and back.

No graph holds them. A traced call that takes or gives them becomes calls on the two parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from lvc.compiler.load.normalise.builder import Builder, Operand, Result, Rule, Unsupported
from lvc.compiler.load.normalise.composite import written
from lvc.compiler.load.normalise.movement import expand
from lvc.compiler.load.normalise.spectral import dft

aten = torch.ops.aten


class Pair(NamedTuple):
    """The real and the imaginary parts of a complex tensor."""

    real: Operand
    imag: Operand


def is_complex(target: OpOverload, args: Any, kwargs: Any) -> bool:
    """Whether a call makes complex numbers, or takes some."""
    return target in _MAKERS or any(isinstance(leaf, Pair | complex) for leaf in _leaves((args, kwargs)))


def spell_complex(b: Builder, target: OpOverload, args: Any, kwargs: Any) -> Result:
    """Write a call with complex numbers; `Unsupported` for one that is not known of them."""
    rule = _MAKERS.get(target) or _TAKERS.get(target)
    if rule is None and target in _ON_EACH:
        rule = _on_each(target)
    if rule is None:
        raise Unsupported("it takes complex numbers")
    return rule(b, *args, **kwargs)


def _leaves(args: Any) -> list[Any]:
    return tree_leaves(args, is_leaf=lambda leaf: isinstance(leaf, Pair))


def _made(parts: Result) -> Pair:
    assert isinstance(parts, tuple)
    return Pair(*parts)


def _transform(*, inverse: bool, half: bool, axes: int | None) -> Rule:
    """A rule for transforms over one axis, two, or as many as are said; ``half`` of real numbers, or to such."""

    def rule(
        b: Builder,
        x: Operand | Pair,
        sizes: Sequence[int] | int | None = None,
        dims: Sequence[int] | int | None = (-2, -1) if axes == 2 else -1 if axes == 1 else None,
        norm: str | None = None,
    ) -> Result:
        parts = x if isinstance(x, Pair) else (x,)
        if half and inverse == (len(parts) == 1):
            raise Unsupported("it is of real numbers, and its inverse of complex ones")
        shape = parts[0].shape
        wanted = [sizes] if isinstance(sizes, int) else list(sizes or ())
        if dims is None:
            dims = range(-len(wanted), 0) if wanted else range(len(shape))
        places = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)]
        lengths = [shape[d] for d in places]
        if half and inverse:
            lengths[-1] = 2 * (lengths[-1] - 1)
        lengths = [
            length if size in (None, -1) else size for length, size in zip(lengths, wanted or lengths, strict=True)
        ]
        steps = [(d, n, half and i == len(places) - 1) for i, (d, n) in enumerate(zip(places, lengths, strict=True))]
        factor = _factor(norm, math.prod(lengths), inverse=inverse)

        def meaning(*planes: Tensor) -> Any:
            found = torch.stack(planes, -1)
            for axis, length, onesided in steps if inverse else reversed(steps):
                found = dft(found, axis, length, inverse=inverse, onesided=onesided)
            found = found if factor == 1.0 else found * factor
            return found[..., 0] if half and inverse else found.unbind(-1)

        made = written(b, meaning, *parts)
        return made if half and inverse else _made(made)

    return rule


def _factor(norm: str | None, count: int, *, inverse: bool) -> float:
    """What a transform is multiplied with whose inverse is divided by the number of its elements."""
    shares = {None: 0.0, "backward": 0.0, "ortho": 0.5, "forward": 1.0}
    if norm not in shares:
        raise Unsupported(f"its norm is '{norm}'")
    return math.pow(count, shares[norm] if inverse else -shares[norm])


def _plain(target: OpOverload) -> Callable[..., Any]:
    from lvc.compiler.load.normalise.rules import rule_of

    rule = rule_of(target)
    return rule if rule else lambda b, *args, **kwargs: b.call(target, *args, **kwargs)


def _on_each(target: OpOverload) -> Rule:
    """The rule of an operator that does the same to both parts; what is real has an imaginary part of zero."""

    def rule(b: Builder, *args: Any, **kwargs: Any) -> Result:
        parts = ([_part(b, arg, place) for arg in args] for place in range(2))
        return Pair(*(_plain(target)(b, *given, **kwargs) for given in parts))

    return rule


def _part(b: Builder, arg: Any, place: int) -> Any:
    """One of both parts of an argument, or of each in a list of them."""
    if isinstance(arg, Pair):
        return arg[place]
    if isinstance(arg, list | tuple):
        return [_part(b, item, place) for item in arg]
    if isinstance(arg, Operand) and place:
        return b.constant(torch.zeros(arg.shape, dtype=arg.dtype))
    return arg


def _sum(target: OpOverload) -> Rule:
    """Adds or subtracts; a number has no imaginary part."""

    def rule(b: Builder, x: Any, y: Any, **kwargs: Any) -> Result:
        if isinstance(y, complex):
            y = Pair(b.number(y.real, torch.float32), b.number(y.imag, torch.float32))
        number = b.number(y, torch.float32) if isinstance(y, int | float) else y
        return _on_each(target)(b, x, number, **kwargs)

    return rule


def _mul(b: Builder, x: Any, y: Any) -> Result:
    mul = _plain(aten.mul.Tensor)
    d, e = (y.real, y.imag) if isinstance(y, Pair | complex) else (y, None)
    if not isinstance(x, Pair):
        return Pair(mul(b, x, d), mul(b, x, e))
    if e is not None:
        a, c = x
        sub, add = _plain(aten.sub.Tensor), _plain(aten.add.Tensor)
        return Pair(sub(b, mul(b, a, d), mul(b, c, e)), add(b, mul(b, a, e), mul(b, c, d)))
    return Pair(mul(b, x.real, d), mul(b, x.imag, d))


def _div(b: Builder, x: Any, y: Any) -> Result:
    if isinstance(y, Pair | complex):
        raise Unsupported("it takes complex numbers, to divide by")
    div = _plain(aten.div.Tensor)
    return Pair(div(b, x.real, y), div(b, x.imag, y))


def _conj(b: Builder, x: Pair) -> Result:
    return Pair(x.real, _plain(aten.neg.default)(b, x.imag))


def _abs(b: Builder, x: Pair) -> Result:
    return written(b, lambda real, imag: (real * real + imag * imag).sqrt(), *x)


def _view_as_complex(b: Builder, x: Operand) -> Result:
    return _made(written(b, lambda pairs: pairs.unbind(-1), x))


def _complex(b: Builder, real: Operand, imag: Operand) -> Result:
    shape = tuple(torch.broadcast_shapes(real.shape, imag.shape))  # type: ignore[no-untyped-call]
    return Pair(expand(b, real, shape), expand(b, imag, shape))


def _shift(*, inverse: bool) -> Rule:
    """Moves the first frequency to the middle, or back; of real numbers as well."""

    def rule(b: Builder, x: Operand | Pair, dim: Sequence[int] | None = None) -> Result:
        shape = (x.real if isinstance(x, Pair) else x).shape
        dims = [d % len(shape) for d in (range(len(shape)) if dim is None else dim)]
        shifts = [(shape[d] + 1) // 2 if inverse else shape[d] // 2 for d in dims]
        moved = [
            written(b, lambda part: part.roll(shifts, dims), part) for part in (x if isinstance(x, Pair) else (x,))
        ]
        return _made(tuple(moved)) if isinstance(x, Pair) else moved[0]  # type: ignore[arg-type]

    return rule


_MAKERS: dict[OpOverload, Rule] = {
    aten.view_as_complex.default: _view_as_complex,
    aten.complex.default: _complex,
    aten.fft_fftshift.default: _shift(inverse=False),
    aten.fft_ifftshift.default: _shift(inverse=True),
    **{
        getattr(aten, f"fft_{'i' * inverse}{'r' * half}fft{suffix}").default: _transform(
            inverse=inverse, half=half, axes=axes
        )
        for suffix, axes in (("", 1), ("2", 2), ("n", None))
        for inverse in (False, True)
        for half in (False, True)
    },
}
_TAKERS: dict[OpOverload, Rule] = {
    aten.real.default: lambda _, x: x.real,
    aten.imag.default: lambda _, x: x.imag,
    aten.view_as_real.default: lambda b, x: written(b, lambda real, imag: torch.stack([real, imag], -1), *x),
    aten.abs.default: _abs,
    aten._conj.default: _conj,
    aten.conj.default: _conj,
    aten.resolve_conj.default: lambda _, x: x,
    aten.mul.Tensor: _mul,
    aten.div.Tensor: _div,
    aten.add.Tensor: _sum(aten.add.Tensor),
    aten.sub.Tensor: _sum(aten.sub.Tensor),
}
_ON_EACH = frozenset({
    *(aten.reshape.default, aten.view.default, aten.permute.default, aten.transpose.int, aten.slice.Tensor),
    *(aten.select.int, aten.cat.default, aten.stack.default, aten.unsqueeze.default, aten.squeeze.dim),
    *(aten.expand.default, aten.flip.default, aten.roll.default, aten.clone.default, aten.contiguous.default),
    *(aten.neg.default, aten.flatten.using_ints, aten.unflatten.int, aten.movedim.int, aten.movedim.intlist),
    *(aten.detach.default, aten.alias.default, aten.index_select.default),
})  # fmt: skip
"""Operators that do to both parts what they do to real numbers."""

COMPLEX = frozenset({*_MAKERS, *_TAKERS})
"""Operators that are known of complex numbers alone, or of them as well."""

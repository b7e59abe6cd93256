"""Pooling in two dimensions: fixed windows, and adaptive ones only where the sizes do not divide."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import reshape, unsqueeze
from lvc.compiler.load.normalise.window_sizes import Sizes, pair, steps

aten = torch.ops.aten


def max_pool2d(
    b: Builder,
    x: Operand,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Operand:
    stride = pair(steps(stride, kernel))
    return b.call(aten.max_pool2d.default, x, pair(kernel), stride, pair(padding), pair(dilation), ceil_mode)


def avg_pool2d(
    b: Builder,
    x: Operand,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Operand:
    stride = pair(steps(stride, kernel))
    options = (ceil_mode, count_include_pad, divisor_override)
    return b.call(aten.avg_pool2d.default, x, pair(kernel), stride, pair(padding), *options)


def _wanted(x: Operand, size: Sequence[int | None] | int) -> list[int]:
    wanted = [size, size] if isinstance(size, int) else list(size)
    return [have if want is None else want for want, have in zip(wanted, x.shape[-2:], strict=True)]


def _windows(x: Operand, size: list[int]) -> list[int] | None:
    """The fixed windows that an adaptive pooling uses, or None where they differ from place to place."""
    if any(have % want for have, want in zip(x.shape[-2:], size, strict=True)):
        return None
    return [have // want for have, want in zip(x.shape[-2:], size, strict=True)]


def adaptive_avg_pool2d(b: Builder, x: Operand, output_size: Sequence[int | None] | int) -> Operand:
    size = _wanted(x, output_size)
    window = _windows(x, size)
    if window == [1, 1]:
        return x
    if size == [1, 1]:
        return b.call(aten.mean.dim, x, [x.rank - 2, x.rank - 1], True)
    if window is None:
        return b.call(aten.adaptive_avg_pool2d.default, x, size)
    return avg_pool2d(b, x, window)


def _adaptive_max_pool2d(b: Builder, x: Operand, output_size: Sequence[int | None] | int) -> tuple[Operand, ...]:
    size = _wanted(x, output_size)
    window = _windows(x, size)
    if window is None:
        raise Unsupported("its windows differ from place to place")
    if size == [1, 1]:
        return (b.call(aten.amax.default, x, [x.rank - 2, x.rank - 1], True),)
    return (max_pool2d(b, x, window),)


def _one_dimension(rule: Rule, neutral: Sequence[int]) -> Rule:
    """A rule on ``(N, C, L)`` from that on ``(N, C, 1, L)``; ``neutral`` is the height of each size in its order."""

    def widened(height: int, size: Sizes) -> list[int]:
        sizes = [size] if isinstance(size, int) else list(size)
        return [height, sizes[-1]] if sizes else []

    def apply(b: Builder, x: Operand, *options: object) -> Operand:
        count = len(neutral)
        sizes = [widened(h, s) for h, s in zip(neutral, options[:count], strict=False)]  # type: ignore[arg-type]
        result = rule(b, unsqueeze(b, x, -2), *sizes, *options[count:])
        assert isinstance(result, Operand)
        return reshape(b, result, (*result.shape[:-2], result.shape[-1]))

    return apply


POOLING: dict[OpOverload, Rule] = {
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
    aten.max_pool1d.default: _one_dimension(max_pool2d, (1, 1, 0, 1)),
    aten.avg_pool1d.default: _one_dimension(avg_pool2d, (1, 1, 0)),
    aten.adaptive_avg_pool1d.default: _one_dimension(adaptive_avg_pool2d, (1,)),
}

"""Convolutions and matrix products, alone and with elementwise work behind them, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from sketch import Sketch, check, numbers

aten = torch.ops.aten


@pytest.mark.parametrize("channels", [3, 24, 58])
def test_convolutions(channels: int) -> None:
    sketch = Sketch()
    data = sketch.conv(sketch.input(1, channels, 9, 7), channels)
    outputs = [
        sketch.conv(data, 24, 3),
        sketch.conv(data, 5, 1, 2),
        sketch.conv(data, channels, 5, 2, groups=channels),
        sketch.conv(data, 2 * channels, 3, groups=channels),
        sketch.conv(data, 3 * channels, 3, 2, groups=channels),
        sketch.conv(data, 9 * channels, 3, groups=channels),
        sketch.conv(data, 16, 3, groups=1 if channels % 2 else 2),
    ]
    weight = sketch.stored(torch.randn(6, channels, 3, 2) / 10)
    outputs.append(sketch.call(aten.conv2d.default, data, weight, None, [2, 1], [2, 0], [2, 3], 1))
    up = sketch.stored(torch.randn(channels, 6, 3, 3) / 10)
    bias = sketch.stored(torch.randn(6))
    outputs.append(sketch.call(aten.conv_transpose2d.input, data, up, bias, [2, 2], [1, 1], [1, 1], 1, [1, 1]))
    check(sketch.model(*outputs), numbers(1, channels, 9, 7), tolerance=1e-4)


def test_grouped_transposed_convolution_and_a_weight_that_is_computed() -> None:
    sketch = Sketch()
    data = sketch.input(2, 6, 5, 5)
    up = sketch.call(
        aten.conv_transpose2d.input,
        data,
        sketch.stored(torch.randn(6, 2, 2, 2)),
        None,
        [2, 2],
        [0, 0],
        [0, 0],
        3,
        [2, 1],
    )
    weight = sketch.call(
        aten.mul.Tensor, sketch.stored(torch.randn(4, 6, 1, 1)), sketch.call(aten.mean.dim, data, None)
    )
    computed = sketch.call(aten.conv2d.default, data, weight)
    check(sketch.model(up, computed), numbers(2, 6, 5, 5), tolerance=1e-4)


def test_matrix_products() -> None:
    sketch = Sketch()
    a, b, v = sketch.input(2, 3, 7, 5), sketch.input(2, 3, 5, 11), sketch.input(5)
    weight, bias = sketch.stored(torch.randn(13, 5)), sketch.stored(torch.randn(13))
    table, one = sketch.stored(torch.randn(5, 9)), sketch.call(aten.slice.Tensor, b, 1, 0, 1)
    outputs = [
        sketch.call(aten.linear.default, a, weight, bias),
        sketch.call(aten.linear.default, v, weight, bias),
        sketch.call(aten.linear.default, a, sketch.stored(torch.randn(1, 5))),
        sketch.call(aten.matmul.default, a, table),
        sketch.call(aten.matmul.default, a, b),
        sketch.call(aten.matmul.default, a, one),
        sketch.call(aten.matmul.default, a, v),
        sketch.call(aten.matmul.default, v, b),
        sketch.call(aten.matmul.default, v, v),
        sketch.call(aten.matmul.default, sketch.stored(torch.randn(4, 7)), a),
    ]
    check(sketch.model(*outputs), numbers(2, 3, 7, 5), numbers(2, 3, 5, 11), numbers(5), tolerance=1e-4)


@pytest.mark.parametrize("channels", [5, 16])
def test_groups(channels: int) -> None:
    """Residual addition, squeeze-and-excitation, activations and broadcast parameters in the kernel of their anchor."""
    sketch = Sketch()
    data = sketch.conv(sketch.input(2, 3, 6, 5), channels)
    first = sketch.conv(data, channels, 3, group="first")
    first = sketch.call(aten.add.Tensor, first, data, group="first")
    first = sketch.call(aten.silu.default, first, group="first")
    gate = sketch.call(aten.mean.dim, first, [2, 3], True)
    gate = sketch.call(aten.hardsigmoid.default, sketch.conv(gate, channels, group="gate"), group="gate")
    second = sketch.conv(first, channels, 3, groups=channels, group="second")
    second = sketch.call(aten.hardswish.default, second, group="second")
    second = sketch.call(aten.mul.Tensor, second, gate, group="second")
    second = sketch.call(aten.div.Tensor, second, sketch.stored(torch.rand(channels, 1, 1) + 0.1), group="second")
    rows = sketch.call(aten.permute.default, second, [0, 2, 3, 1])
    weight = sketch.stored(torch.randn(channels, channels) / 4)
    third = sketch.call(aten.linear.default, rows, weight, sketch.stored(torch.randn(channels)), group="third")
    third = sketch.call(aten.gelu.default, third, group="third")
    third = sketch.call(aten.add.Tensor, third, rows, group="third")
    pool = sketch.call(aten.max_pool2d.default, second, [2, 2], [2, 2], group="pool")
    pool = sketch.call(aten.relu.default, pool, group="pool")
    norm = sketch.call(aten.layer_norm.default, third, [channels], group="norm")
    norm = sketch.call(aten.tanh.default, norm, group="norm")
    chain = sketch.call(aten.exp.default, norm, group="chain")
    chain = sketch.call(aten.add.Tensor, chain, norm, group="chain")
    check(sketch.model(third, pool, chain, second), numbers(2, 3, 6, 5), tolerance=1e-4)


def test_groups_that_cannot_be_one_kernel() -> None:
    """A member that is read outside, one that broadcasts, and one that waits for the group's own result."""
    sketch = Sketch()
    data = sketch.input(1, 3, 4, 4)
    first = sketch.conv(data, 4, group="read")
    second = sketch.call(aten.relu.default, first, group="read")
    small = sketch.call(aten.mean.dim, second, [2, 3], True, group="grow")
    grown = sketch.call(aten.add.Tensor, small, second, group="grow")
    start = sketch.call(aten.neg.default, grown, group="loop")
    detour = sketch.call(aten.softmax.int, start, 1)
    end = sketch.call(aten.add.Tensor, start, detour, group="loop")
    check(sketch.model(first, end), numbers(1, 3, 4, 4))


def test_a_square_weight_that_is_read_along_both_axes() -> None:
    """A product with the weight, then one with its transpose: what is packed for one does not serve the other."""
    sketch = Sketch()
    weight = sketch.stored(torch.randn(6, 6))
    product = sketch.call(aten.matmul.default, sketch.input(15, 6), weight)
    check(sketch.model(sketch.call(aten.linear.default, product, weight)), numbers(15, 6))

"""Operators that move elements, from and to plain and blocked values, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, check, numbers
from torch.fx import Node

aten = torch.ops.aten


def start(sketch: Sketch, blocked: bool, channels: int) -> Node:
    data = sketch.input(1, channels, 4, 6)
    return sketch.conv(data, channels) if blocked else data


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=2, max_size=4), st.data())
def test_dimensions_of_any_size_are_rolled_together(shape: list[int], data: st.DataObject) -> None:
    """As remainders, the indices of two neighbours once lost where the second comes round: 16 of 20 by 16 by 3."""
    for sizes, shifts in ((shape, [data.draw(st.integers(-30, 30)) for _ in shape]), ([1, 20, 16, 3], [0, -1, -3, 0])):
        sketch = Sketch()
        x = sketch.input(*sizes)
        check(sketch.model(sketch.call(aten.roll.default, x, shifts, list(range(len(sizes))))), numbers(*sizes))


@pytest.mark.parametrize(("blocked", "channels"), [(False, 6), (True, 12), (True, 16)])
def test_one_operand(blocked: bool, channels: int) -> None:
    sketch = Sketch()
    data = start(sketch, blocked, channels)
    c = channels
    outputs = [
        sketch.call(aten.reshape.default, data, [1, c * 24]),
        sketch.call(aten.reshape.default, data, [2, c // 2, 24]),
        sketch.call(aten.permute.default, data, [0, 2, 3, 1]),
        sketch.call(aten.permute.default, data, [3, 0, -3, 2]),
        sketch.call(aten.expand.default, sketch.call(aten.slice.Tensor, data, 1, 0, 1), [2, c, 4, 6]),
        sketch.call(aten.repeat.default, data, [2, 1, 3, 1]),
        sketch.call(aten.slice.Tensor, data, 1, 2, 5),
        sketch.call(aten.slice.Tensor, data, 3, -4, None, 2),
        sketch.call(aten.roll.default, data, [1, -2], [2, 3]),
        sketch.call(aten.roll.default, data, [5]),
        sketch.call(aten.flip.default, data, [1, 3]),
        sketch.call(aten.constant_pad_nd.default, data, [1, 2, 0, 3], 1.5),
        sketch.call(aten.constant_pad_nd.default, data, [-1, 2, 0, 0, 1, 1]),
        *(sketch.call(aten.pad.default, data, [2, 1, 0, 3], mode) for mode in ("reflect", "replicate", "circular")),
        sketch.call(aten.pad.default, data, [2, 1, 0, 3], "constant", 0.5),
        sketch.call(aten.pixel_unshuffle.default, data, 2),
        sketch.call(aten.index_select.default, data, 1, sketch.stored(torch.tensor([2, 0, 2]))),
        sketch.call(aten.cat.default, [data, sketch.call(aten.slice.Tensor, data, 1, 0, 3)], 1),
        sketch.call(aten.cat.default, [data, data], 2),
    ]
    check(sketch.model(*outputs), numbers(1, channels, 4, 6))


@pytest.mark.parametrize("channels", [12, 16])
def test_movement_between_convolutions(channels: int) -> None:
    """Channel shuffle, halves, pixel shuffle: all blocked in and out."""
    sketch = Sketch()
    data = sketch.conv(sketch.input(1, 3, 4, 6), channels)
    pairs = sketch.call(aten.reshape.default, data, [1, 2, channels // 2, 4, 6])
    shuffled = sketch.call(
        aten.reshape.default, sketch.call(aten.permute.default, pairs, [0, 2, 1, 3, 4]), [1, channels, 4, 6]
    )
    left = sketch.call(aten.slice.Tensor, shuffled, 1, 0, channels // 2)
    right = sketch.conv(sketch.call(aten.slice.Tensor, shuffled, 1, channels // 2, channels), channels // 2)
    joined = sketch.conv(sketch.call(aten.cat.default, [left, right], 1), channels)
    upscaled = sketch.conv(sketch.call(aten.pixel_shuffle.default, joined, 2), 7)
    check(sketch.model(upscaled, shuffled), numbers(1, 3, 4, 6))


@pytest.mark.parametrize("batch", [1, 2])
def test_joins_in_place(batch: int) -> None:
    """Concatenations that hold others, share parts, or repeat them, as in DenseNet and SqueezeNet."""
    sketch = Sketch()
    data = sketch.input(batch, 3, 4, 6)
    first, second, ragged = sketch.conv(data, 16), sketch.conv(data, 32), sketch.conv(data, 5)
    pair = sketch.call(aten.cat.default, [first, second], 1)
    third = sketch.call(aten.relu.default, sketch.conv(pair, 16))
    triple = sketch.call(aten.cat.default, [first, second, third], 1)
    whole = sketch.call(aten.cat.default, [triple, ragged, data], 1)
    twice = sketch.call(aten.cat.default, [third, third], 1)
    swapped = sketch.call(aten.cat.default, [second, first], 1)
    outputs = [sketch.conv(value, 8) for value in (pair, triple, whole, twice, swapped)]
    check(sketch.model(*outputs, triple, second), numbers(batch, 3, 4, 6))


def test_plain_joins() -> None:
    sketch = Sketch()
    tokens, data = sketch.stored(torch.randn(1, 1, 6)), sketch.input(1, 4, 6)
    doubled = sketch.call(aten.mul.Tensor, data, 2)
    joined = sketch.call(aten.cat.default, [tokens, doubled, data], 1)
    integers = sketch.call(aten.to.dtype, data, torch.int64)
    mixed = sketch.call(aten.cat.default, [data, integers], -1)
    check(sketch.model(joined, sketch.call(aten.relu.default, joined), mixed), numbers(1, 4, 6))


def test_indices_from_data() -> None:
    sketch = Sketch()
    table = sketch.input(7, 5)
    rows = sketch.input(2, 3, dtype=torch.int64)
    places = sketch.input(4, 5, dtype=torch.int64)
    one = sketch.call(aten.reshape.default, sketch.call(aten.slice.Tensor, rows, 0, 0, 1), [3])
    outputs = [
        sketch.call(aten.embedding.default, table, rows),
        sketch.call(aten.gather.default, table, 0, places),
        sketch.call(aten.index_select.default, table, 0, one),
    ]
    random = np.random.default_rng(0)
    check(sketch.model(*outputs), numbers(7, 5), random.integers(0, 7, (2, 3)), random.integers(0, 7, (4, 5)))


def test_outputs_that_are_inputs_weights_or_each_other() -> None:
    sketch = Sketch()
    data, weight = sketch.input(1, 3, 4), sketch.stored(torch.randn(2, 5))
    value = sketch.call(aten.relu.default, data)
    flat = sketch.call(aten.reshape.default, value, [12])
    check(sketch.model(data, weight, value, value, flat), numbers(1, 3, 4))


def test_scalars() -> None:
    sketch = Sketch()
    data = sketch.input()
    check(sketch.model(sketch.call(aten.exp.default, data), data), np.array(0.5, np.float32))

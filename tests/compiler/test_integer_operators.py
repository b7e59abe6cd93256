"""Integer operators against integers computed one by one, and the bounds of their sums against the worst data."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.bounds import DataRange, group_bounds, product_bound, sum_bound
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.operators import integer
from lvc.compiler.ir.serialise import from_files, to_files

DTYPES = [torch.uint8, torch.int8]


def integers(random: np.random.Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random numbers of a type, half of them at its ends."""
    limits = torch.iinfo(dtype)
    values = random.integers(limits.min, limits.max + 1, shape)
    ends = random.choice([limits.min, limits.max], shape)
    return torch.from_numpy(np.where(random.random(shape) < 0.5, values, ends)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 4)])
def test_convolution_sums_whole_numbers(
    dtype: torch.dtype, stride: int, padding: int, dilation: int, groups: int
) -> None:
    random = np.random.default_rng(0)
    q, weight = integers(random, dtype, 2, 4, 7, 6), integers(random, torch.int8, 8, 4 // groups, 3, 2)
    bias = torch.from_numpy(random.integers(-(2**30), 2**30, 8)).to(torch.int32)
    found = integer.conv2d(q, weight, bias, 3, [stride] * 2, [padding] * 2, [dilation] * 2, groups)
    padded = np.pad(q.numpy().astype(np.int64) - 3, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    for n, o, y, x in np.ndindex(*found.shape):
        first = o // (8 // groups) * (4 // groups)
        rows, columns = (start * stride + np.arange(k) * dilation for start, k in ((y, 3), (x, 2)))
        window = padded[n, first : first + 4 // groups][:, rows][:, :, columns]
        assert int(found[n, o, y, x]) == int((window * weight[o].numpy().astype(np.int64)).sum()) + int(bias[o])


def test_a_linear_layer_and_a_pool_sum_whole_numbers() -> None:
    random = np.random.default_rng(1)
    q, weight = integers(random, torch.uint8, 3, 2, 600), integers(random, torch.int8, 5, 600)
    wanted = (q.numpy().astype(np.int64) - 128) @ weight.numpy().astype(np.int64).T
    assert np.array_equal(integer.linear(q, weight, None, 128).numpy(), wanted)
    image = integers(random, torch.int8, 1, 1, 4, 4)
    sums = integer.sum_pool2d(image, -7, [3, 3], [2, 2], [1, 1])
    padded = np.pad(image.numpy().astype(np.int64) + 7, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert [[int(padded[0, 0, y : y + 3, x : x + 3].sum()) for x in (0, 2)] for y in (0, 2)] == sums[0, 0].tolist()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(2.0**-40, 2.0, width=32),
    st.sampled_from([(0, 0, 255), (128, 0, 255), (-5, -128, 127), (3, 3, 7)]),
)
def test_requantisation_rounds_as_defined(total: int, multiplier: float, grid: tuple[int, int, int]) -> None:
    zero_point, low, high = grid
    found = integer.requantise(torch.tensor([total], dtype=torch.int32), torch.tensor([multiplier]), 0, *grid)
    product = np.float32(np.float32(total) * np.float32(multiplier))
    assert int(found) == min(max(round(Fraction(float(product))) + zero_point, low), high)


@settings(max_examples=100, deadline=None)
@given(st.floats(2.0**-30, 2.0**10), st.integers(-255, 255))
def test_products_of_short_multipliers_are_exact(value: float, difference: int) -> None:
    short = integer.short_multiplier(value)
    assert abs(short - value) <= value * 2**-16
    assert float(np.float32(difference) * np.float32(short)) == difference * short


@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.data())
def test_the_bound_of_products_of_data_is_reached_and_not_passed(
    left: torch.dtype, right: torch.dtype, data: st.DataObject
) -> None:
    limits = [torch.iinfo(dtype) for dtype in (left, right)]
    zeros = [data.draw(st.integers(limit.min, limit.max)) for limit in limits]
    ends = [[limit.min - zero, limit.max - zero] for limit, zero in zip(limits, zeros, strict=True)]
    depth = data.draw(st.integers(1, 50))
    bound = product_bound(depth, DataRange.of(left, zeros[0]), DataRange.of(right, zeros[1]))
    assert bound == depth * max(abs(a * b) for a, b in itertools.product(*ends))


def test_a_table_is_indexed_from_the_least_number() -> None:
    values = torch.arange(256).flip(0).to(torch.uint8)
    assert integer.table(torch.tensor([-128, 0, 127], dtype=torch.int8), values).tolist() == [255, 127, 0]
    assert integer.table(torch.tensor([0, 255], dtype=torch.uint8), values).tolist() == [255, 0]


@pytest.mark.parametrize(
    "call",
    [
        "lvc.conv2d(%x, @w, None, 0, [1, 1], [0, 0], [1, 1], 1)",  # float data
        "lvc.quantise(%q, 0.5, 0, 0, 255)",  # data that is integers already
        "lvc.quantise(%x, 0.5, 0, 0, 256)",  # a range of more than 8 bits
        "lvc.requantise(%q, @s, 1, 0, 0, 255)",  # sums of 8 bits
        "lvc.conv2d(%q, @s, None, 0, [1, 1], [0, 0], [1, 1], 1)",  # float weights
    ],
)
def test_operands_of_the_wrong_type_are_refused(call: str) -> None:
    text = f"model m(x: f32[1,2,4,4], q: u8[1,2,4,4])\n@w : i8[2,2,1,1]\n@s : f32[2]\n%y = {call}\nreturn y=%y"
    with pytest.raises(CompileError, match="cannot take these operands"):
        parse_model(text)


def test_an_integer_graph_is_stored_and_read_back() -> None:
    model = parse_model("""
        model m(x: f32[1,2,4,4])
          @w : i8[3,2,1,1]
          @s : f32[3]
          %q = lvc.quantise(%x, 0.1, 3, -128, 127)
          %sums = lvc.conv2d(%q, @w, None, 3, [1, 1], [0, 0], [1, 1], 1)
          %y = lvc.rescale(%sums, @s, 1)
          return y=%y
    """)
    again = from_files(to_files(model))
    assert again.to_text() == model.to_text()
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(again(x)[0], model(x)[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-128, 127), min_size=1, max_size=5), st.sampled_from(DTYPES), st.integers(-128, 255))
def test_the_bound_of_sums_is_reached(weights: list[int], dtype: torch.dtype, zero: int) -> None:
    limits = torch.iinfo(dtype)
    zero_point = min(max(zero, limits.min), limits.max)
    weight = torch.tensor([weights], dtype=torch.int8)
    corners = itertools.product([limits.min, zero_point, limits.max], repeat=len(weights))
    worst = max(abs(sum(w * (q - zero_point) for w, q in zip(weights, data, strict=True))) for data in corners)
    assert sum_bound(weight, DataRange.of(dtype, zero_point)) == worst
    bias = torch.tensor([-1000], dtype=torch.int32)
    assert sum_bound(weight, DataRange.of(dtype, zero_point), bias) <= worst + 1000


def test_the_bound_of_pairs_is_that_of_saturating_instructions() -> None:
    weight = torch.tensor([[64, 64], [64, -64], [-128, -128]], dtype=torch.int8)
    found = group_bounds(weight, DataRange.of(torch.uint8, 7))
    assert found.tolist() == [128 * 255, 64 * 255, 256 * 255]  # the last needs more than 16 bits

"""Winograd's convolution of bfloat16: what is multiplied is what PyTorch rounds at the same places.

The code is that for AVX-512, with its two instructions for bfloat16 replaced by arithmetic that any processor has.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import AVX2, blocked, random, unblocked
from test_bfloat16 import rounded
from test_wide_vectors import WITH_DOTS
from tvm import te
from tvm.s_tir import Schedule

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu.kernels import conv2d, winograd
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16
from lvc.backends.tvm.cpu.kernels.winograd import Winograd, choose_tile, tiles_for
from lvc.backends.tvm.cpu.kernels.winograd_nest import Knobs
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.compiler.backend import Target
from lvc.compiler.ir.cook_toom import KERNELS, CookToom
from lvc.compiler.measure.filtering import convolved

SAME = (1, 1, 1, 1)


def convolution(channels: int, size: int, outputs: int) -> Conv2d:
    return Conv2d(1, channels, size, size, outputs, (3, 3), padding=SAME, in_block=16, out_block=16, operand=BFLOAT16)


def prepared(problem: Winograd, weight: np.ndarray) -> np.ndarray:
    """The weights as setup makes them."""
    function = winograd.prepare_function(problem, WITH_DOTS).with_attr("global_symbol", "main")
    result = tvm.runtime.tensor(np.zeros(winograd.prepared_shape(problem), np.int32))
    stored = tvm.runtime.tensor(winograd.pack_weight(problem, weight))
    tvm.compile(function, target={"kind": "llvm", "mcpu": "haswell"})["main"](stored, result)
    return np.asarray(result.numpy())


def run(problem: Winograd, data: np.ndarray, weight: np.ndarray, knobs: Knobs | None = None) -> np.ndarray:
    """The convolution of ``data`` ``[N, C, H, W]`` in float32."""
    arrays = [bfloat16.to_bits(blocked(data, 16)), prepared(problem, weight)]
    operands = [te.placeholder(array.shape, str(array.dtype), f"x{i}") for i, array in enumerate(arrays)]
    result = winograd.compute(problem, *operands)
    schedule = Schedule(te.create_prim_func([*operands, result]))
    winograd.schedule(schedule, problem, WITH_DOTS, knobs)
    output = tvm.runtime.tensor(np.full([int(size) for size in result.shape], np.nan, np.float32))
    library = tvm.compile(schedule.mod, target={"kind": "llvm", "mcpu": "haswell"})
    library["main"](*map(tvm.runtime.tensor, arrays), output)
    return unblocked(output.numpy(), problem.plain.out_channels)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """In the mean square."""
    return float(np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2)))


def check(problem: Winograd, knobs: Knobs | None = None) -> None:
    """A kernel differs from PyTorch, with the same roundings, by sums in another order alone, which send a number here
    and there to the neighbouring bfloat16."""
    p = problem.plain
    data = random(p.batch, p.in_channels, p.height, p.width)
    weight = random(p.out_channels, p.in_channels, *p.kernel) / np.float32(np.sqrt(p.in_channels * np.prod(p.kernel)))
    top, left, bottom, right = p.padding
    padded = torch.nn.functional.pad(rounded(data), (left, right, top, bottom))
    exact = torch.nn.functional.conv2d(padded.double(), rounded(weight).double()).numpy()
    simulated = convolved(padded, rounded(weight), (0, 0), problem.tile, torch.bfloat16).numpy()
    found, rounding = run(problem, data, weight, knobs), distance(simulated, exact)
    assert found.shape == exact.shape
    assert 0 < rounding < 0.01 * np.abs(exact).max()
    assert distance(found, simulated) <= 0.3 * rounding
    assert distance(found, exact) <= 1.1 * rounding


ODD = [
    pytest.param({}, id="64 channels"),
    pytest.param({"batch": 2, "in_channels": 19, "out_channels": 21}, id="ragged, two images"),
    pytest.param({"padding": (1, 0, 2, 1)}, id="uneven padding"),
    pytest.param({"height": 3, "width": 3, "padding": (0, 0, 0, 0)}, id="one pixel"),
    pytest.param({"in_channels": 1, "height": 9, "width": 8}, id="one channel"),
    pytest.param({"kernel": (3, 1), "padding": (1, 0, 1, 0)}, id="3x1"),
    pytest.param({"kernel": (1, 3), "padding": (0, 1, 0, 1)}, id="1x3"),
]


@pytest.mark.parametrize("changes", ODD)
def test_multiplies_what_pytorch_rounds(changes: dict[str, object]) -> None:
    check(Winograd(dataclasses.replace(convolution(64, 13, 40), **changes), 2))  # type: ignore[arg-type]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_shape_and_knobs(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from(KERNELS), "kernel")
    plain = dataclasses.replace(
        convolution(data.draw(st.integers(2, 40), "inputs"), 8, data.draw(st.integers(1, 40), "outputs")),
        kernel=kernel,
        padding=data.draw(st.tuples(*[st.integers(0, 2)] * 4), "padding"),
        height=data.draw(st.integers(6, 14), "height"),
        width=data.draw(st.integers(6, 20), "width"),
    )
    knobs = Knobs(
        vectors=data.draw(st.integers(1, 3), "vectors"),
        tiles=data.draw(st.integers(1, 6), "tiles"),
        rows=data.draw(st.integers(1, 4), "rows"),
        chunk=data.draw(st.integers(1, 3), "chunk"),
        together=data.draw(st.booleans(), "together"),
    )
    check(Winograd(plain, 2), knobs)


def test_prepared_weights_are_rounded_once_more() -> None:
    problem, weight = Winograd(convolution(18, 8, 5), 2), random(5, 18, 3, 3)
    matrix = torch.tensor(CookToom.of(2).weights)
    points = torch.einsum("iy,ocyx,jx->ijoc", matrix, rounded(weight), matrix).reshape(16, 5, 18)
    words = prepared(problem, weight)  # [O/16, points, C/16, words, 16]
    pairs = np.stack([words & 0xFFFF, words >> 16 & 0xFFFF], -2).reshape(1, 16, 2 * 16, 16)
    found = pairs[0, :, :18, :5].transpose(0, 2, 1).astype(np.uint16)
    np.testing.assert_array_equal(found, bfloat16.to_bits(points.numpy()))


def test_the_definition_is_the_convolution() -> None:
    problem, weight, data = Winograd(convolution(18, 5, 8), 2), random(8, 18, 3, 3) / 12, random(1, 18, 5, 5)
    arrays = [bfloat16.to_bits(blocked(data, 16)), prepared(problem, weight)]
    operands = [te.placeholder(array.shape, str(array.dtype)) for array in arrays]
    function = te.create_prim_func([*operands, winograd.compute(problem, *operands)])
    result = tvm.runtime.tensor(np.zeros((1, 1, 5, 5, 16), np.float32))
    tvm.compile(function, target="llvm")["main"](*map(tvm.runtime.tensor, arrays), result)
    exact = torch.nn.functional.conv2d(rounded(data).double(), rounded(weight).double(), padding=1)
    np.testing.assert_allclose(unblocked(result.numpy(), 8), exact, atol=0.05)


def test_where_it_may_be_used() -> None:
    plain = convolution(64, 56, 64)
    assert tiles_for(plain, WITH_DOTS, 4) == (2, 4)
    assert tiles_for(plain, WITH_DOTS, 2) == (2,)
    assert tiles_for(dataclasses.replace(plain, in_block=8, out_block=8), AVX2, 2) == ()
    assert tiles_for(dataclasses.replace(plain, in_block=2), WITH_DOTS, 2) == ()
    arm = vector_of(Target.parse("neoverse-v1"))  # where products of matrices do as much
    assert tiles_for(dataclasses.replace(plain, in_block=4, out_block=4), arm, 2) == ()


@pytest.mark.parametrize(
    ("plain", "tile"),
    [
        (convolution(64, 56, 64), 2),  # on Zen 4 1.77 times as fast
        (convolution(128, 28, 128), 2),  # 2.0
        (convolution(256, 14, 256), 2),  # 2.0
        (convolution(512, 7, 512), 2),  # 1.5
        (convolution(16, 6, 16), 0),
    ],
)
def test_the_choice_on_zen_4(plain: Conv2d, tile: int) -> None:
    assert choose_tile(plain, vector_of(Target.parse("znver4")), 2) == tile


def test_each_rounding_is_one_instruction_on_zen_4() -> None:
    problem, vector = Winograd(convolution(64, 28, 64), 2), vector_of(Target.parse("znver4"))
    shapes = ((1, 4, 28, 28, 16), bfloat16.BITS), (winograd.prepared_shape(problem), "int32")
    operands = [te.placeholder(*shape) for shape in shapes]
    schedule = Schedule(te.create_prim_func([*operands, winograd.compute(problem, *operands)]))
    winograd.schedule(schedule, problem, vector)
    assembly = tvm.compile(schedule.mod, target={"kind": "llvm", "mcpu": "znver4"}).mod.inspect_source("asm")
    assert "vdpbf16ps" in assembly
    assert assembly.count("vcvtneps2bf16") >= problem.points
    assert "__truncsfbf2" not in assembly


def test_the_stored_weights_are_those_of_the_plain_convolution() -> None:
    problem, weight = Winograd(convolution(20, 8, 20), 2), random(20, 20, 3, 3)
    np.testing.assert_array_equal(winograd.pack_weight(problem, weight), conv2d.pack_weight(problem.plain, weight))

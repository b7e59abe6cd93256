"""Winograd's convolution against PyTorch's in double precision, and the choice between it and the plain one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import AVX2, blocked, build, expected, random, run, unblocked
from tvm import te

from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernels import conv2d, winograd
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16
from lvc.backends.tvm.cpu.kernels.winograd import Winograd, choose_tile, tiles_for
from lvc.backends.tvm.cpu.kernels.winograd_cost import MOST_DATA, WinogradCost, plain_cycles
from lvc.backends.tvm.cpu.kernels.winograd_nest import Knobs
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.backends.tvm.cpu.vector import Vector
from lvc.compiler.backend import Target
from lvc.compiler.ir.cook_toom import KERNELS

SAME = (1, 1, 1, 1)
BOUND = 2e-6  # relative to the largest output and term: the plain kernel's is 4e-7


def convolution(channels: int, size: int, outputs: int) -> Conv2d:
    return Conv2d(1, channels, size, size, outputs, (3, 3), padding=SAME)


def prepared(problem: Winograd, weight: np.ndarray) -> np.ndarray:
    """The weights as setup makes them."""
    function = winograd.prepare_function(problem, AVX2).with_attr("global_symbol", "main")
    result = tvm.runtime.tensor(np.full(winograd.prepared_shape(problem), np.nan, np.float32))
    mcpu = "x86-64" if problem.channels.out_block == 4 else "haswell"
    library = tvm.compile(function, target={"kind": "llvm", "mcpu": mcpu})
    library["main"](tvm.runtime.tensor(winograd.pack_weight(problem, weight)), result)
    return np.asarray(result.numpy())


def operands(problem: Winograd) -> tuple[list[np.ndarray], torch.Tensor]:
    """Data and prepared weights, and the sums in double precision."""
    p = problem.plain
    data = random(p.batch, p.in_channels, p.height, p.width)
    inputs = p.in_channels // p.groups
    weight = random(p.out_channels, inputs, *p.kernel) / np.float32(np.sqrt(inputs * np.prod(p.kernel)))
    top, left, bottom, right = p.padding
    padded = torch.nn.functional.pad(torch.from_numpy(data).double(), (left, right, top, bottom))
    sums = torch.nn.functional.conv2d(padded, torch.from_numpy(weight).double(), groups=p.groups)
    return [blocked(data, p.in_block), prepared(problem, weight)], sums


def check(problem: Winograd, vector: Vector = AVX2, **options: Any) -> None:
    arrays, sums = operands(problem)
    library = build(winograd, problem, [a.shape for a in arrays], vector, **options)
    residual = random(*sums.shape)
    found = unblocked(run(library, arrays, blocked(residual, problem.plain.out_block)), sums.shape[1])
    wanted = expected(sums, residual)
    largest = max(np.abs(part).max() for part in (wanted, residual, sums.numpy()))  # of few outputs all may cancel
    assert np.abs(found - wanted).max() <= BOUND * largest


ODD = [
    pytest.param(Conv2d(2, 19, 9, 11, 21, (3, 3), padding=(1, 0, 2, 1)), id="ragged channels, uneven padding"),
    pytest.param(Conv2d(1, 8, 3, 3, 8, (3, 3)), id="one pixel"),
    pytest.param(Conv2d(1, 3, 1, 1, 5, (3, 3), padding=SAME), id="one pixel, padded"),
    pytest.param(Conv2d(1, 24, 14, 7, 40, (3, 3), padding=(2, 2, 2, 2)), id="padding 2"),
    pytest.param(Conv2d(1, 58, 13, 30, 116, (3, 3), padding=(0, 3, 1, 0)), id="58 to 116 channels"),
    pytest.param(Conv2d(3, 16, 5, 6, 8, (3, 3), padding=SAME), id="batch of 3"),
    pytest.param(Conv2d(2, 19, 9, 11, 21, (3, 1), padding=(1, 0, 1, 0)), id="3x1"),
    pytest.param(Conv2d(2, 19, 9, 11, 21, (1, 3), padding=(0, 1, 0, 1)), id="1x3"),
    pytest.param(Conv2d(1, 8, 6, 1, 16, (3, 1), padding=(0, 1, 2, 0)), id="3x1, padded beside"),
    pytest.param(Conv2d(1, 8, 1, 7, 16, (1, 3), padding=(1, 0, 0, 2)), id="1x3, padded above"),
]


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("plain", ODD)
def test_matches_pytorch(plain: Conv2d, tile: int) -> None:
    check(Winograd(plain, tile))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_matches_pytorch_on_any_shape(data: st.DataObject) -> None:
    padding = data.draw(st.tuples(*[st.integers(0, 2)] * 4), "padding")
    kernel = data.draw(st.sampled_from(KERNELS), "kernel")
    plain = Conv2d(
        batch=data.draw(st.integers(1, 2), "batch"),
        in_channels=data.draw(st.integers(1, 20), "inputs"),
        height=max(1, kernel[0] - padding[0] - padding[2]) + data.draw(st.integers(0, 12), "height"),
        width=max(1, kernel[1] - padding[1] - padding[3]) + data.draw(st.integers(0, 30), "width"),
        out_channels=data.draw(st.integers(1, 40), "outputs"),
        kernel=kernel,
        padding=padding,
    )
    knobs = Knobs(
        vectors=data.draw(st.integers(1, 3), "vectors"),
        tiles=data.draw(st.integers(1, 6), "tiles"),
        rows=data.draw(st.integers(1, 4), "rows"),
        chunk=data.draw(st.integers(1, 5), "chunk"),
        together=data.draw(st.booleans(), "together"),
    )
    check(Winograd(plain, data.draw(st.sampled_from([2, 4]), "tile")), knobs=knobs)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "block"),
    [
        (56, 56, 4, 16),
        (24, 24, 4, 16),
        (72, 72, 3, 16),
        (48, 48, 3, 16),
        (4, 4, 8, 16),
        (8, 8, 5, 16),
        (40, 24, 2, 16),
        (4, 4, 8, 8),
        (12, 12, 3, 8),
    ],
)
def test_groups_match_pytorch(inputs: int, outputs: int, groups: int, block: int, tile: int) -> None:
    size = groups * inputs, 9, 11, groups * outputs
    plain = Conv2d(1, *size, (3, 3), padding=SAME, groups=groups, in_block=block, out_block=block)
    options: dict[str, Any] = {"vector": Vector(Avx512()), "mcpu": "haswell"} if block == 16 else {}
    assert tiles_for(plain, options.get("vector", AVX2), tile)
    check(Winograd(plain, tile), **options)
    knobs = Knobs(vectors=2, tiles=3, rows=2, chunk=plain.channels.result.period, together=True)
    check(Winograd(plain, tile), **options, knobs=knobs)


def test_four_lanes() -> None:
    check(Winograd(dataclasses.replace(convolution(10, 9, 14), in_block=4, out_block=4), 4), Vector(Sse()))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_definition_is_the_convolution(kernel: tuple[int, int]) -> None:
    problem = Winograd(dataclasses.replace(convolution(9, 5, 8), kernel=kernel), 4)
    arrays, sums = operands(problem)
    placeholders = [te.placeholder(a.shape, "float32") for a in arrays]
    function = te.create_prim_func([*placeholders, winograd.compute(problem, *placeholders)])
    result = tvm.runtime.tensor(np.zeros(blocked(sums.float().numpy(), 8).shape, np.float32))
    tvm.compile(function, target="llvm")["main"](*map(tvm.runtime.tensor, arrays), result)
    np.testing.assert_allclose(unblocked(result.numpy(), 8), sums, atol=1e-5)


def test_avx512_keeps_its_sums_in_registers() -> None:
    plain = Conv2d(1, 64, 28, 28, 64, (3, 3), padding=SAME, in_block=16, out_block=16)
    problem, vector = Winograd(plain, 4), Vector(Avx512())
    knobs = winograd.choose_knobs(problem, vector)
    library = build(winograd, problem, [(1, 4, 28, 28, 16), winograd.prepared_shape(problem)], vector)
    lines = library.mod.inspect_source("asm").splitlines()
    sums = [line for line in lines if "vfmadd" in line and "zmm" in line]
    assert len(sums) >= 8 * knobs.vectors * knobs.tiles
    assert len([line for line in lines if "zmm" in line and "(%rsp)" in line]) < len(sums) / 10


REFUSED = [
    dataclasses.replace(convolution(64, 56, 64), stride=(2, 2)),
    dataclasses.replace(convolution(64, 56, 64), dilation=(2, 2)),
    Conv2d(1, 60, 9, 9, 60, (3, 3), padding=SAME, groups=6),  # 10 channels a group: no part of a block for each
    dataclasses.replace(convolution(64, 56, 64), kernel=(5, 5)),
    dataclasses.replace(convolution(3, 56, 64), in_block=0),
    dataclasses.replace(convolution(64, 56, 64), operand=BFLOAT16),
]


@pytest.mark.parametrize("plain", REFUSED)
def test_other_convolutions_stay_plain(plain: Conv2d) -> None:
    assert not tiles_for(plain, AVX2, 4)
    assert choose_tile(plain, AVX2, 4) == 0


@pytest.mark.parametrize(
    ("plain", "tile"),
    [
        (convolution(64, 56, 64), 4),
        (convolution(128, 28, 128), 4),
        (convolution(256, 14, 256), 4),
        (convolution(96, 35, 96), 4),
        (convolution(512, 7, 512), 2),  # four times as many weights for four tiles would come from memory
        (convolution(128, 7, 32), 0),
        (convolution(8, 6, 8), 0),
        (dataclasses.replace(convolution(64, 56, 64), kernel=(3, 1)), 4),
        (dataclasses.replace(convolution(256, 14, 256), kernel=(1, 3)), 4),
        (dataclasses.replace(convolution(16, 14, 16), kernel=(1, 3)), 0),
    ],
)
def test_the_choice(plain: Conv2d, tile: int) -> None:
    assert choose_tile(plain, AVX2, 4) == tile
    assert choose_tile(plain, AVX2, 0) == 0
    assert choose_tile(plain, AVX2, 2) in (0, 2)


SMALL = [  # on Zen 4 within resnet18, the plain convolution over each tile of 2 and of 4
    (convolution(256, 4, 256), 2),  # 1.45, 0.71
    (convolution(512, 4, 512), 2),  # 1.12, 0.54
    (convolution(512, 2, 512), 0),  # 0.96, 0.42
    (convolution(256, 2, 256), 0),  # 0.71, 0.34
    (convolution(128, 8, 128), 4),  # 1.53, 1.87
    (convolution(256, 8, 256), 4),  # 1.65, 2.1
    (convolution(512, 7, 512), 4),  # 1.42, 1.65
]


@pytest.mark.parametrize(("plain", "tile"), SMALL)
def test_the_choice_where_weights_are_most_of_the_data(plain: Conv2d, tile: int) -> None:
    plain = dataclasses.replace(plain, in_block=16, out_block=16)
    assert choose_tile(plain, vector_of(Target.parse("znver4")), 4) == tile


@pytest.mark.parametrize(("cpu", "tile"), [("x86-64-v3", 0), ("x86-64-v2", 2), ("cortex-a53", 2), ("neoverse-n1", 2)])
def test_the_choice_for_small_images_follows_the_pace_of_the_products(cpu: str, tile: int) -> None:
    vector = vector_of(Target.parse(cpu))
    plain = dataclasses.replace(convolution(256, 4, 256), in_block=vector.lanes, out_block=vector.lanes)
    assert choose_tile(plain, vector, 4) == tile  # where the products are done before the weights have come, fewer win


def test_two_threads_have_equal_shares() -> None:
    for plain in (convolution(64, 56, 64), convolution(128, 28, 128), convolution(256, 14, 256)):
        knobs = winograd.choose_knobs(Winograd(plain, 4), AVX2)
        rows, blocks = Winograd(plain, 4).tiles[0], plain.channels.out_blocks
        count = -(-blocks // knobs.chunk) if knobs.together else -(-rows // knobs.rows)
        assert count % 2 == 0


@pytest.mark.parametrize(
    ("plain", "chunks"),
    [
        (convolution(256, 14, 256), 8),  # on Zen 4 0.90 of the time with 4 on one thread
        (convolution(512, 7, 512), 8),  # 0.95
        (convolution(64, 13, 256), 4),  # with 8 it would take 1.02
    ],
)
def test_deep_products_have_work_for_eight_threads(plain: Conv2d, chunks: int) -> None:
    problem = Winograd(dataclasses.replace(plain, in_block=16, out_block=16), 4)
    knobs = winograd.choose_knobs(problem, vector_of(Target.parse("znver4")))
    assert knobs.together
    assert knobs.chunk % knobs.vectors == 0
    assert -(-problem.channels.out_blocks // knobs.chunk) == chunks


def test_the_cost_counts_what_is_multiplied() -> None:
    plain = convolution(128, 28, 128)
    cost = WinogradCost(Winograd(plain, 4), AVX2)
    knobs = cost.best()
    assert (
        cost.weights
        == np.prod(winograd.prepared_shape(cost.problem)) * 4
        == 4 * 4 * np.prod(conv2d.packed_shape(plain))
    )
    assert cost.transforms < cost.cycles(knobs) < plain_cycles(plain, AVX2) / 2


@pytest.mark.parametrize("plain", [convolution(64, 224, 64), convolution(512, 56, 512), convolution(2048, 30, 8)])
def test_scratch_is_bounded(plain: Conv2d) -> None:
    problem = Winograd(plain, 4)
    rows = winograd.choose_knobs(problem, AVX2).rows
    data = problem.points * plain.channels.in_blocks * 8 * rows * problem.tiles[1] * 4
    assert rows == 1 or data <= MOST_DATA

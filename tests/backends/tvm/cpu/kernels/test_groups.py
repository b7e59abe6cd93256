"""Convolutions in groups that do not begin where blocks of channels do."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import test_bfloat16
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import AVX2, blocked, build, check, random, run
from test_avx512 import assembly
from torch.nn import functional

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernels import conv2d, conv_transpose2d
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.conv_transpose2d import ConvTranspose2d
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.strips import MOST_WRITTEN, GroupBlocks, Strip
from lvc.backends.tvm.cpu.vector import Vector

SAME = (1, 1, 1, 1)
WIDTHS = [(4, Vector(Sse()), ""), (8, AVX2, ""), (16, Vector(Avx512()), "haswell")]
SIZES = [(8, 4), (4, 8), (3, 24), (2, 40), (3, 56), (2, 72), (2, 112), (5, 12), (3, 20), (2, 120), (7, 5), (3, 2)]


def grouped(groups: int, size: int, block: int, outputs: int = 0, **options: Any) -> Conv2d:
    """A convolution of so many groups, each of so many channels."""
    wide = {"padding": SAME, **options, "groups": groups, "in_block": block, "out_block": block}
    return Conv2d(1, groups * size, 5, 9, groups * (outputs or size), (3, 3), **wide)


def expected(p: Conv2d, data: np.ndarray, weight: np.ndarray) -> torch.Tensor:
    """What PyTorch makes of it."""
    padded = functional.pad(torch.from_numpy(data), (p.padding[1], p.padding[3], p.padding[0], p.padding[2]))
    return functional.conv2d(padded, torch.from_numpy(weight), None, p.stride, 0, p.dilation, p.groups)


def operands_of(p: Conv2d) -> tuple[np.ndarray, np.ndarray]:
    """Data and weights."""
    inputs = p.in_channels // p.groups
    weight = random(p.out_channels, inputs, *p.kernel) / np.float32(3 * inputs**0.5)
    return random(p.batch, p.in_channels, p.height, p.width), weight


def check_convolution(p: Conv2d, vector: Vector, **options: Any) -> None:
    data, weight = operands_of(p)
    packed = conv2d.pack_weight(p, weight)
    check(conv2d, p, [blocked(data, p.in_block), packed], expected(p, data, weight), vector=vector, **options)


@pytest.mark.parametrize(("block", "vector", "mcpu"), WIDTHS)
@pytest.mark.parametrize(("groups", "size"), SIZES)
def test_groups_of_any_size_match_pytorch(groups: int, size: int, block: int, vector: Vector, mcpu: str) -> None:
    check_convolution(grouped(groups, size, block), vector, mcpu=mcpu)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_groups_of_other_inputs_than_outputs_match_pytorch(data: st.DataObject) -> None:
    block, vector, mcpu = data.draw(st.sampled_from(WIDTHS), "lanes")
    groups, size = data.draw(st.integers(2, 6), "groups"), data.draw(st.integers(1, 30), "inputs")
    outputs, stride = data.draw(st.integers(1, 60), "outputs"), data.draw(st.integers(1, 2), "stride")
    problem = grouped(groups, size, block, outputs, stride=(stride, stride))
    if data.draw(st.booleans(), "pointwise"):
        problem = dataclasses.replace(problem, kernel=(1, 1), padding=(0, 0, 0, 0), stride=(1, 1))
    check_convolution(problem, vector, mcpu=mcpu)


@pytest.mark.parametrize(
    ("groups", "size", "knobs"), [(4, 56, (2, 5, 2, 3)), (5, 12, (1, 4, 2, 3)), (6, 24, (1, 3, 1, 4))]
)
def test_how_work_is_divided_does_not_matter(groups: int, size: int, knobs: tuple[int, int, int, int]) -> None:
    problem = grouped(groups, size, 16)
    data, weight = operands_of(problem)
    operands, residual = [blocked(data, 16), conv2d.pack_weight(problem, weight)], random(1, *result_shape(problem))
    options: dict[str, Any] = {"vector": Vector(Avx512()), "mcpu": "haswell"}
    shapes = [array.shape for array in operands]
    usual = run(build(conv2d, problem, shapes, **options), operands, residual)
    other = run(build(conv2d, problem, shapes, **options, knobs=conv2d.Knobs(*knobs)), operands, residual)
    np.testing.assert_array_equal(usual, other)


def result_shape(problem: Conv2d) -> tuple[int, ...]:
    return problem.channels.out_blocks, problem.out_height, problem.out_width, problem.out_block


@pytest.mark.parametrize("size", [56, 12])
def test_the_reduction_of_a_group_may_be_done_in_parts(size: int) -> None:
    problem = grouped(3, size, 16)
    parts = problem.channels.span
    assert parts > 1
    knobs = conv2d.Knobs(problem.channels.result.longest, 4, 2, 2, depth_parts=parts)
    check_convolution(problem, Vector(Avx512()), mcpu="haswell", knobs=knobs)


@pytest.mark.parametrize("size", [56, 24, 12, 5])
def test_pairs_of_bfloat16(size: int) -> None:
    problem = dataclasses.replace(grouped(3, size, 16), operand=BFLOAT16)
    data, weight = operands_of(problem)
    sums = expected(problem, *(test_bfloat16.rounded(array).numpy() for array in (data, weight)))
    operands = [bfloat16.to_bits(blocked(data, 16)), conv2d.pack_weight(problem, weight)]
    test_bfloat16.check(conv2d, problem, operands, sums, Vector(Avx512()))


@pytest.mark.parametrize("size", [56, 12, 3])
def test_transposed(size: int) -> None:
    p = ConvTranspose2d(1, 3 * size, 4, 5, 3 * size, (3, 3), (2, 2), SAME, (1, 1), groups=3, in_block=16, out_block=16)
    data, weight = random(1, 3 * size, 4, 5), random(3 * size, size, 3, 3) / np.float32(3 * size**0.5)
    sums = functional.conv_transpose2d(torch.from_numpy(data), torch.from_numpy(weight), None, 2, 1, 1, 3)
    operands = [blocked(data, 16), conv_transpose2d.pack_weight(p, weight)]
    check(conv_transpose2d, p, operands, sums, vector=Vector(Avx512()), mcpu="haswell")


def test_no_group_reads_another() -> None:
    """Zeros among the weights would make NaN of infinity."""
    problem = grouped(4, 24, 16)
    data, weight = operands_of(problem)
    data[:, 24:48] = np.inf
    operands, residual = [blocked(data, 16), conv2d.pack_weight(problem, weight)], random(1, *result_shape(problem))
    vector = Vector(Avx512())
    library = build(conv2d, problem, [array.shape for array in operands], vector, "haswell")
    found = run(library, operands, residual).transpose(0, 1, 4, 2, 3).reshape(1, 96, 5, 9)
    assert np.isfinite(found[:, :24]).all()
    assert np.isfinite(found[:, 48:]).all()


@pytest.mark.parametrize("size", [4, 8, 24, 48, 56, 64, 72, 112, 120, 168, 232])
@pytest.mark.parametrize("block", [8, 16])
def test_no_product_is_with_a_zero(size: int, block: int) -> None:
    """Where parts of blocks are a power of two, each lane of a register is a product that is wanted."""
    problem = grouped(4, size, block)
    weight = np.ones((4 * size, size, 3, 3), np.float32)
    assert np.count_nonzero(conv2d.pack_weight(problem, weight)) == weight.size
    assert problem.geometry.depth == 9 * size


@pytest.mark.parametrize(("operand", "instruction"), [(FLOAT32, "vfmadd"), (BFLOAT16, "vdpbf16ps")])
def test_registers_of_a_shared_block_are_as_wide_as_its_parts(operand: DotOperand, instruction: str) -> None:
    problem = dataclasses.replace(grouped(4, 56, 16), operand=operand)
    lines = assembly(conv2d, problem, (1, 14, 5, 9, 16), "znver4")
    widths = Counter(match[1] for line in lines if (match := re.search(rf"{instruction}.*%([xyz])mm\d+$", line)))
    assert widths["z"] > widths["y"] > 0
    assert not widths["x"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 140), st.sampled_from([4, 8, 16]))
def test_strips_are_all_blocks_once(groups: int, size: int, lanes: int) -> None:
    blocks = GroupBlocks(groups * size, groups, lanes)
    seen: Counter[int] = Counter()
    assert len(blocks.strips) <= MOST_WRITTEN
    for strip in blocks.strips:
        for first in (strip.first + turn * strip.step for turn in range(strip.count)):
            seen.update(range(first, first + strip.blocks))
            last = min((first + strip.blocks) * lanes, groups * size) - 1
            assert strip.is_shared or first * lanes // size == last // size
    assert seen == Counter(range(blocks.count))


def test_strips_of_known_networks() -> None:
    ends, middle = (Strip(first, 3, False, 2, 7) for first in (0, 4)), Strip(3, 1, True, 2, 7)
    assert set(GroupBlocks(224, 4, 16).strips) == {*ends, middle}
    assert GroupBlocks(128, 32, 16).strips == (Strip(0, 8, is_shared=True),)
    assert GroupBlocks(896, 8, 16).strips == (Strip(0, 7, False, 8, 7),)
    assert GroupBlocks(104, 13, 16).strips == (Strip(0, 7, is_shared=True),)
    assert GroupBlocks(64, 1, 16).strips == (Strip(0, 4, False, 1, 4),)

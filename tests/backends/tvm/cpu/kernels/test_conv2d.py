"""Convolutions against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import AVX2, blocked, build, check, random, run, written

from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernels import conv2d, conv_transpose2d
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.conv_transpose2d import ConvTranspose2d
from lvc.backends.tvm.cpu.kernels.matrix_operands import BFLOAT16_MATRIX
from lvc.backends.tvm.cpu.vector import Vector

SAME = (1, 1, 1, 1)
ODD = [
    pytest.param(Conv2d(2, 20, 9, 11, 19, (3, 3), (2, 2), (1, 0, 2, 1)), id="ragged channels, uneven padding"),
    pytest.param(Conv2d(1, 40, 7, 7, 24, (1, 1)), id="pointwise"),
    pytest.param(Conv2d(1, 40, 13, 13, 24, (1, 1), (2, 2)), id="pointwise, stride 2"),
    pytest.param(Conv2d(1, 16, 13, 9, 16, (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6)), id="dilated"),
    pytest.param(Conv2d(1, 3, 23, 21, 40, (3, 3), (2, 2), SAME, in_block=0), id="plain input"),
    pytest.param(Conv2d(1, 4, 9, 9, 6, (2, 5), (1, 3), (0, 3, 1, 2), (2, 1), 2, in_block=0), id="plain, two groups"),
    pytest.param(Conv2d(1, 8, 3, 3, 8, (3, 3)), id="one pixel"),
]
GROUPED = [
    pytest.param(Conv2d(1, 32, 7, 7, 32, (3, 3), padding=SAME, groups=8), id="4 channels a group"),
    pytest.param(Conv2d(1, 48, 10, 10, 48, (3, 3), padding=SAME, groups=2), id="24 channels a group"),
    pytest.param(Conv2d(1, 60, 8, 8, 90, (1, 1), groups=3), id="groups across blocks"),
    pytest.param(Conv2d(1, 12, 8, 8, 24, (3, 3), padding=SAME, groups=12), id="two outputs for each channel"),
]

DILATED = [  # windows of which many taps are outside the image
    pytest.param(Conv2d(1, 24, 11, 17, 20, (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6)), 9, id="nine sides"),
    pytest.param(Conv2d(1, 24, 17, 13, 20, (3, 3), padding=(9, 9, 9, 9), dilation=(9, 9)), 9, id="no middle"),
    pytest.param(Conv2d(2, 24, 12, 13, 20, (3, 3), padding=(14, 13, 14, 13), dilation=(14, 13)), 1, id="one tap"),
    pytest.param(Conv2d(1, 8, 12, 14, 8, (3, 3), padding=(9, 5, 5, 4), dilation=(7, 5)), 12, id="uneven"),
    pytest.param(Conv2d(1, 16, 21, 29, 16, (3, 3), (2, 2), (8, 8, 8, 8), (8, 8)), 9, id="stride 2"),
    pytest.param(Conv2d(1, 32, 9, 14, 32, (3, 3), padding=(5, 5, 5, 5), dilation=(5, 5), groups=2), 9, id="groups"),
    pytest.param(Conv2d(1, 1200, 4, 12, 16, (3, 3), padding=(4, 4, 4, 4), dilation=(4, 4)), 3, id="deep"),
    pytest.param(Conv2d(1, 3, 14, 18, 16, (3, 3), padding=(7, 7, 7, 7), dilation=(7, 7), in_block=0), 6, id="plain"),
    pytest.param(Conv2d(1, 8, 5, 16, 8, (3, 3), padding=(30, 6, 30, 6), dilation=(6, 6)), 21, id="rows of no tap"),
]


def check_convolution(problem: Conv2d, vector: Vector = AVX2) -> None:
    p = problem
    data = random(p.batch, p.in_channels, p.height, p.width)
    weight = random(p.out_channels, p.in_channels // p.groups, *p.kernel) / np.float32(np.sqrt(p.geometry.depth))
    top, left, bottom, right = p.padding
    padded = torch.nn.functional.pad(torch.from_numpy(data), (left, right, top, bottom))
    sums = torch.nn.functional.conv2d(padded, torch.from_numpy(weight), None, p.stride, 0, p.dilation, p.groups)
    check(conv2d, p, [blocked(data, p.in_block), conv2d.pack_weight(p, weight)], sums, vector=vector)


@pytest.mark.parametrize("problem", ODD + GROUPED)
def test_matches_pytorch(problem: Conv2d) -> None:
    check_convolution(problem)


@pytest.mark.parametrize(("problem", "phases"), DILATED)
def test_dilated_windows_are_cut_where_their_taps_leave_the_image(problem: Conv2d, phases: int) -> None:
    assert len(problem.geometry.phases) == phases
    assert not problem.geometry.is_copied
    check_convolution(problem)


def test_dilated_windows_of_a_copy_are_whole() -> None:
    problem = Conv2d(1, 24, 11, 17, 20, (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6), operand=BFLOAT16_MATRIX)
    assert len(problem.geometry.phases) == 1
    assert problem.geometry.is_copied


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_matches_pytorch_on_any_shape(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 1, 2, 3]), "groups")
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)), "dilation")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    problem = Conv2d(
        batch=data.draw(st.integers(1, 2), "batch"),
        in_channels=groups * data.draw(st.integers(1, 12), "inputs"),
        height=reach[0] + data.draw(st.integers(0, 9), "height"),
        width=reach[1] + data.draw(st.integers(0, 30), "width"),
        out_channels=groups * data.draw(st.integers(1, 20), "outputs"),
        kernel=kernel,
        stride=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)), "stride"),
        padding=data.draw(st.tuples(*[st.integers(0, 2)] * 4), "padding"),
        dilation=dilation,
        groups=groups,
        in_block=data.draw(st.sampled_from([0, 8]), "in_block"),
    )
    check_convolution(problem)


def test_four_lanes() -> None:
    problem = Conv2d(1, 10, 9, 8, 14, (3, 3), padding=SAME, in_block=4, out_block=4)
    check_convolution(problem, Vector(Sse()))


@pytest.mark.parametrize("knobs", [(2, 6, 3, 2), (1, 12, 5, 3), (4, 3, 1, 4), (3, 4, 20, 1)])
def test_knobs_do_not_change_the_result(knobs: tuple[int, int, int, int]) -> None:
    problem = Conv2d(1, 16, 11, 10, 32, (3, 3), padding=SAME)
    operands = [blocked(random(1, 16, 11, 10), 8), conv2d.pack_weight(problem, random(32, 16, 3, 3))]
    residual = random(1, 4, 11, 10, 8)
    shapes = [a.shape for a in operands]
    default = run(build(conv2d, problem, shapes), operands, residual)
    other = run(build(conv2d, problem, shapes, knobs=conv2d.Knobs(*knobs)), operands, residual)
    np.testing.assert_array_equal(default, other)


def test_the_reduction_may_be_done_in_parts() -> None:
    problem = Conv2d(1, 32, 9, 10, 40, (3, 3), (2, 1), SAME)
    data, weight = random(1, 32, 9, 10), random(40, 32, 3, 3) / np.float32(17)
    sums = torch.nn.functional.conv2d(torch.from_numpy(data), torch.from_numpy(weight), None, (2, 1), 1)
    operands = [blocked(data, 8), conv2d.pack_weight(problem, weight)]
    check(conv2d, problem, operands, sums, knobs=conv2d.Knobs(3, 4, 3, 2, depth_parts=4))


def test_avx512_keeps_its_sums_in_registers() -> None:
    problem = Conv2d(1, 64, 28, 28, 64, (3, 3), padding=SAME, in_block=16, out_block=16)
    vector = Vector(Avx512())
    knobs = conv2d.choose_knobs(problem, vector)
    shapes = [(1, 4, 28, 28, 16), conv2d.packed_shape(problem)]
    library = build(conv2d, problem, shapes, vector)
    lines = library.mod.inspect_source("asm").splitlines()
    sums = [line for line in lines if "vfmadd" in line and "zmm" in line]
    assert len(sums) >= 8 * knobs.vectors * knobs.pixels
    spilt = [line for line in lines if "zmm" in line and "(%rsp)" in line]
    assert len(spilt) < len(sums) / 20


TRANSPOSED = [
    pytest.param(ConvTranspose2d(1, 16, 5, 6, 24, (3, 3)), id="stride 1"),
    pytest.param(ConvTranspose2d(2, 19, 5, 6, 11, (3, 3), (2, 2), SAME, (1, 1)), id="stride 2"),
    pytest.param(ConvTranspose2d(1, 16, 4, 4, 16, (2, 2), (3, 3), (0, 0, 0, 0), (2, 1)), id="stride past the kernel"),
    pytest.param(
        ConvTranspose2d(1, 16, 7, 5, 16, (5, 4), (2, 3), (2, 1, 2, 1), (1, 2), (3, 2), 2), id="dilated, two groups"
    ),
    pytest.param(
        ConvTranspose2d(1, 16, 7, 5, 8, (3, 3), (2, 2), SAME, (0, 0), (2, 2), 4), id="stride divides dilation"
    ),
    pytest.param(ConvTranspose2d(1, 8, 3, 4, 8, (16, 17), (8, 8), (4, 3, 4, 3), (1, 0)), id="stride 8"),
    pytest.param(ConvTranspose2d(1, 8, 4, 3, 8, (3, 5), (5, 4), (0, 1, 0, 1), (0, 2), (3, 1)), id="runs of phases"),
    pytest.param(ConvTranspose2d(1, 8, 2, 3, 8, (64, 64), (32, 32), (16,) * 4), id="stride 32"),
]


@pytest.mark.parametrize("problem", TRANSPOSED)
def test_transposed_matches_pytorch(problem: ConvTranspose2d) -> None:
    p = problem
    data = random(p.batch, p.in_channels, p.height, p.width)
    weight = random(p.in_channels, p.out_channels // p.groups, *p.kernel) / np.float32(8)
    sums = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(data),
        torch.from_numpy(weight),
        None,
        p.stride,
        p.padding[:2],
        p.output_padding,
        p.groups,
        p.dilation,
    )
    check(conv_transpose2d, p, [blocked(data, 8), conv_transpose2d.pack_weight(p, weight)], sums)


def test_code_does_not_grow_with_the_stride() -> None:
    """A stride of 8 has 64 phases, each of which was written out."""

    def transposed(stride: int) -> int:
        padding = (stride // 2,) * 4
        problem = ConvTranspose2d(1, 16, 8, 8, 16, (2 * stride,) * 2, (stride,) * 2, padding)
        return written(conv_transpose2d, problem, (1, 2, 8, 8, 8), conv_transpose2d.packed_shape(problem))

    assert transposed(32) < 1.2 * transposed(8) < 2.4 * transposed(2)

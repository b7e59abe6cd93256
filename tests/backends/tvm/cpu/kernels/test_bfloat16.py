"""Kernels for pairs of bfloat16 against PyTorch, and their code for processors that multiply such pairs.

A vector unit without that instruction gets the same nests with the same steps in float32, so what is computed is
tested on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from kernel_harness import AVX2, blocked, expected, random, unblocked
from torch.nn import functional
from tvm import te
from tvm.s_tir import Schedule

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d
from lvc.backends.tvm.cpu.kernels.batch_matmul import BatchMatmul
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.conv_transpose2d import ConvTranspose2d
from lvc.backends.tvm.cpu.kernels.depthwise import Depthwise
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.kernels.pool2d import Pool2d
from lvc.backends.tvm.cpu.vector import Vector

SAME = (1, 1, 1, 1)


def rounded(array: np.ndarray) -> torch.Tensor:
    """What bfloat16 keeps of an array, as float32."""
    return torch.from_numpy(array).bfloat16().float()


def build(kernel: Any, problem: Any, operands: Sequence[np.ndarray], vector: Vector, target: dict[str, Any]) -> Any:
    """Compile ``relu(2 * sums + residual) + sums`` for a kernel whose residual and result are bfloat16."""
    places = [te.placeholder(array.shape, str(array.dtype), f"x{i}") for i, array in enumerate(operands)]
    sums = kernel.compute(problem, *places)
    residual = te.placeholder(sums.shape, bfloat16.BITS, "residual")

    def tail(*index: Any) -> Any:
        total = te.max(sums(*index) * 2.0 + bfloat16.widen(residual[index].asobject()), 0.0) + sums(*index)
        return bfloat16.narrow(total)

    sch = Schedule(te.create_prim_func([*places, residual, te.compute(sums.shape, tail, name="last")]))
    kernel.schedule(sch, problem, vector)
    return tvm.compile(sch.mod, target={"kind": "llvm", **target})


def check(kernel: Any, problem: Any, operands: Sequence[np.ndarray], sums: torch.Tensor, vector: Vector = AVX2) -> None:
    """Compare a kernel with PyTorch's ``sums`` of the rounded operands."""
    library = build(kernel, problem, operands, vector, {"mcpu": "haswell"})
    residual = random(*sums.shape)
    block = getattr(problem, "out_block", getattr(problem, "block", 0)) if sums.ndim == 4 else 0
    addend = bfloat16.to_bits(blocked(residual, block))
    arrays = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in (*operands, addend, np.zeros_like(addend))]
    library["main"](*arrays)
    result = torch.from_numpy(arrays[-1].numpy()).view(torch.bfloat16).float().numpy()
    shown = unblocked(result, sums.shape[1]) if sums.ndim == 4 else result
    wanted = expected(sums, rounded(residual).numpy())
    # half a unit in the last of 8 places, and sums in another order
    np.testing.assert_allclose(shown, wanted, rtol=2**-8 + 1e-5, atol=1e-4)


CONVOLUTIONS = [
    pytest.param(Conv2d(1, 16, 9, 10, 16, (3, 3), padding=SAME, operand=BFLOAT16), id="padded"),
    pytest.param(Conv2d(1, 40, 7, 7, 24, (1, 1), operand=BFLOAT16), id="pointwise"),
    pytest.param(Conv2d(1, 21, 13, 13, 24, (1, 1), (2, 2), operand=BFLOAT16), id="pointwise, odd, stride 2"),
    pytest.param(Conv2d(2, 19, 9, 11, 20, (3, 3), (2, 2), (1, 0, 2, 1), operand=BFLOAT16), id="ragged, uneven padding"),
    pytest.param(Conv2d(1, 3, 23, 21, 40, (7, 7), (2, 2), (3,) * 4, in_block=4, operand=BFLOAT16), id="first layer"),
    pytest.param(Conv2d(1, 1, 8, 8, 8, (5, 5), in_block=2, operand=BFLOAT16), id="one channel"),
    pytest.param(Conv2d(1, 32, 7, 7, 32, (3, 3), padding=SAME, groups=8, operand=BFLOAT16), id="4 channels a group"),
    pytest.param(Conv2d(1, 60, 8, 8, 90, (1, 1), groups=3, operand=BFLOAT16), id="groups across blocks"),
    pytest.param(Conv2d(1, 9, 8, 8, 9, (3, 3), padding=SAME, groups=3, operand=BFLOAT16), id="3 channels a group"),
    pytest.param(Conv2d(1, 16, 9, 9, 8, (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2), operand=BFLOAT16), id="dilated"),
]


@pytest.mark.parametrize("problem", CONVOLUTIONS)
def test_convolution(problem: Conv2d) -> None:
    p = problem
    data = random(p.batch, p.in_channels, p.height, p.width)
    weight = random(p.out_channels, p.in_channels // p.groups, *p.kernel) / np.float32(np.sqrt(p.geometry.depth))
    top, left, bottom, right = p.padding
    padded = functional.pad(rounded(data), (left, right, top, bottom))
    sums = functional.conv2d(padded, rounded(weight), None, p.stride, 0, p.dilation, p.groups)
    operands = [bfloat16.to_bits(blocked(data, p.in_block)), conv2d.pack_weight(p, weight)]
    check(conv2d, p, operands, sums)


def test_transposed_convolution() -> None:
    problem = ConvTranspose2d(1, 19, 5, 6, 11, (3, 3), (2, 2), SAME, (1, 1), operand=BFLOAT16)
    data, weight = random(1, 19, 5, 6), random(19, 11, 3, 3) / np.float32(8)
    sums = functional.conv_transpose2d(rounded(data), rounded(weight), None, 2, 1, 1)
    operands = [bfloat16.to_bits(blocked(data, 8)), conv_transpose2d.pack_weight(problem, weight)]
    check(conv_transpose2d, problem, operands, sums)


@pytest.mark.parametrize(("stride", "windows"), [(1, 1), (2, 1), (1, 3)])
def test_depthwise_convolution(stride: int, windows: int) -> None:
    problem = Depthwise(1, 20, 11, 13, (3, 3), (stride, stride), SAME, multiplier=windows)
    data, weight = random(1, 20, 11, 13), random(20 * windows, 1, 3, 3)
    sums = functional.conv2d(rounded(data), torch.from_numpy(weight), None, stride, 1, 1, 20)
    operands = [bfloat16.to_bits(blocked(data, 8)), depthwise.pack_weight(problem, weight)]
    check(depthwise, problem, operands, sums)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling(kind: str) -> None:
    problem = Pool2d(kind, 1, 20, 11, 13, 6, 7, (3, 3), (2, 2), SAME)
    data = random(1, 20, 11, 13)
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    check(pool2d, problem, [bfloat16.to_bits(blocked(data, 8))], pool(rounded(data), 3, 2, 1))


@pytest.mark.parametrize("size", [(1, 40, 64), (7, 19, 33), (50, 32, 1), (13, 8, 2)])
def test_linear(size: tuple[int, int, int]) -> None:
    m, n, k = size
    problem = Matmul(m, n, k, operand=BFLOAT16)
    data, weight = random(m, k), random(n, k) / np.float32(np.sqrt(k))
    operands = [bfloat16.to_bits(data), matmul.pack_weight(problem, weight)]
    check(matmul, problem, operands, rounded(data) @ rounded(weight).T)


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("size", [(13, 20, 9), (1, 16, 8), (6, 5, 1)])
def test_batch_matmul(size: tuple[int, int, int], transpose_b: bool) -> None:
    m, n, k = size
    problem = BatchMatmul(3, m, n, k, transpose_b, operand=BFLOAT16)
    a, b = random(3, m, k), random(3, *((n, k) if transpose_b else (k, n))) / np.float32(np.sqrt(k))
    other = rounded(b).transpose(1, 2) if transpose_b else rounded(b)
    check(batch_matmul, problem, [bfloat16.to_bits(a), bfloat16.to_bits(b)], rounded(a) @ other)


def test_the_order_of_a_pair_is_that_of_the_instruction() -> None:
    # 2**30, then -2**30 and 1: of these the second comes first, else 1 is lost
    problem = Matmul(1, 8, 4, operand=BFLOAT16)
    data = np.array([[0, 2.0**30, 1, -(2.0**30)]], np.float32)
    operands = [bfloat16.to_bits(data), matmul.pack_weight(problem, np.ones((8, 4), np.float32))]
    library = build(matmul, problem, operands, AVX2, {"mcpu": "haswell"})
    arrays = [tvm.runtime.tensor(a) for a in (*operands, *np.zeros((2, 1, 8), np.uint16))]
    library["main"](*arrays)
    np.testing.assert_array_equal(arrays[-1].numpy(), bfloat16.to_bits(np.full((1, 8), 3)))


def test_rounding_is_that_of_pytorch() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 4096, np.uint64).astype(np.uint32)
    bits[:6] = 0x3F808000, 0x3F818000, 0x7F800000, 0x7F7FFFFF, 0x7FFFFFFF, 0x80000001
    values = bits.view(np.float32)
    source = te.placeholder((4096,), "float32", "x")
    result = te.compute((4096,), lambda i: bfloat16.narrow(source[i].asobject()), name="y")
    library = tvm.compile(te.create_prim_func([source, result]), target={"kind": "llvm", "mcpu": "haswell"})
    found = tvm.runtime.tensor(np.zeros(4096, np.uint16))
    library["main"](tvm.runtime.tensor(values), found)
    wanted = torch.from_numpy(values).bfloat16()
    ours = torch.from_numpy(found.numpy()).view(torch.bfloat16)
    assert torch.equal(ours.isnan(), wanted.isnan())
    assert torch.equal(ours[~ours.isnan()].view(torch.int16), wanted[~wanted.isnan()].view(torch.int16))

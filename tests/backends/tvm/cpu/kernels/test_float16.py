"""Kernels that multiply and sum halves against PyTorch: their sums are as far off as parts of bounded length allow.

Processors without arithmetic in half precision round each step of it as it would, so nests are tested on any machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import test_bfloat16
import torch
import tvm
from kernel_harness import AVX2, blocked, random, unblocked
from torch.nn import functional
from tvm import te
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d
from lvc.backends.tvm.cpu.kernels.batch_matmul import BatchMatmul
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.conv_transpose2d import ConvTranspose2d
from lvc.backends.tvm.cpu.kernels.depthwise import Depthwise
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT16
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.kernels.pool2d import Pool2d
from lvc.backends.tvm.short_floats import narrow, widen

SUMMED = 2.0**-6
"""How far sums of products of normal numbers, divided by the root of their count, are from exact ones."""


def halves(array: np.ndarray) -> torch.Tensor:
    """What half precision keeps of an array, as float32."""
    return torch.from_numpy(array).half().float()


def run(kernel: Any, problem: Any, operands: Sequence[np.ndarray], shape: Sequence[int], **knobs: Any) -> np.ndarray:
    """The sums of a kernel, as float32, behind a tail that hands them on as halves twice as large."""
    places = [te.placeholder(array.shape, str(array.dtype), f"x{i}") for i, array in enumerate(operands)]
    sums = kernel.compute(problem, *places)
    last = te.compute(sums.shape, lambda *i: narrow(sums(*i) * 2.0, "float16"), name="last")
    sch = Schedule(te.create_prim_func([*places, last]))
    kernel.schedule(sch, problem, AVX2, **knobs)
    result = np.zeros([int(size) for size in sums.shape], np.float16)
    arrays = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (*operands, result)]
    tvm.compile(sch.mod, target={"kind": "llvm", "mcpu": "haswell"})["main"](*arrays)
    found = arrays[-1].numpy().astype(np.float32) / 2
    return unblocked(found, shape[1]) if len(shape) == 4 else found


def check(kernel: Any, problem: Any, operands: Sequence[np.ndarray], sums: torch.Tensor, bound: float = SUMMED) -> None:
    found = run(kernel, problem, operands, sums.shape)
    np.testing.assert_allclose(found, sums.numpy(), rtol=2**-10, atol=bound)


CONVOLUTIONS = [
    pytest.param(dataclasses.replace(case.values[0], operand=FLOAT16), id=case.id)
    for case in test_bfloat16.CONVOLUTIONS
    if case.values[0].in_block in (0, 8)
]


@pytest.mark.parametrize(
    "problem",
    [
        *CONVOLUTIONS,
        pytest.param(Conv2d(1, 3, 23, 21, 40, (7, 7), (2, 2), (3,) * 4, in_block=0, operand=FLOAT16), id="first layer"),
        pytest.param(Conv2d(1, 3, 34, 33, 8, (16, 16), (16, 16), in_block=0, operand=FLOAT16), id="patches"),
        pytest.param(Conv2d(1, 8, 9, 9, 8, (7, 7), padding=(3,) * 4, operand=FLOAT16), id="a tap row a part"),
        pytest.param(Conv2d(1, 280, 6, 6, 24, (3, 3), operand=FLOAT16), id="many parts"),
    ],
)
def test_convolution(problem: Conv2d) -> None:
    p = problem
    data = random(p.batch, p.in_channels, p.height, p.width)
    weight = random(p.out_channels, p.in_channels // p.groups, *p.kernel) / np.float32(np.sqrt(p.geometry.depth))
    top, left, bottom, right = p.padding
    padded = functional.pad(halves(data), (left, right, top, bottom))
    sums = functional.conv2d(padded, halves(weight), None, p.stride, 0, p.dilation, p.groups)
    operands = [blocked(data, p.in_block).astype(np.float16), conv2d.pack_weight(p, weight)]
    check(conv2d, p, operands, sums)


def test_a_reduction_in_parts_that_are_kept_between_tiles() -> None:
    problem = Conv2d(1, 64, 6, 7, 16, (3, 3), padding=(1,) * 4, operand=FLOAT16)
    data, weight = random(1, 64, 6, 7), random(16, 64, 3, 3) / np.float32(24)
    operands = [blocked(data, 8).astype(np.float16), conv2d.pack_weight(problem, weight)]
    sums = functional.conv2d(halves(data), halves(weight), None, 1, 1)
    knobs = dataclasses.replace(conv2d.choose_knobs(problem, AVX2), depth_parts=4)
    np.testing.assert_allclose(run(conv2d, problem, operands, sums.shape, knobs=knobs), sums, rtol=2**-10, atol=SUMMED)


def test_transposed_convolution() -> None:
    problem = ConvTranspose2d(1, 19, 5, 6, 11, (3, 3), (2, 2), (1,) * 4, (1, 1), operand=FLOAT16)
    data, weight = random(1, 19, 5, 6), random(19, 11, 3, 3) / np.float32(8)
    sums = functional.conv_transpose2d(halves(data), halves(weight), None, 2, 1, 1)
    operands = [blocked(data, 8).astype(np.float16), conv_transpose2d.pack_weight(problem, weight)]
    check(conv_transpose2d, problem, operands, sums)


@pytest.mark.parametrize("size", [(1, 40, 64), (7, 19, 33), (50, 32, 1), (3, 8, 1000)])
def test_linear(size: tuple[int, int, int]) -> None:
    m, n, k = size
    problem = Matmul(m, n, k, operand=FLOAT16)
    data, weight = random(m, k), random(n, k) / np.float32(np.sqrt(k))
    check(
        matmul, problem, [data.astype(np.float16), matmul.pack_weight(problem, weight)], halves(data) @ halves(weight).T
    )


@pytest.mark.parametrize("transpose_b", [False, True])
def test_batch_matmul(transpose_b: bool) -> None:
    problem = BatchMatmul(3, 13, 20, 9, transpose_b, operand=FLOAT16)
    a, b = random(3, 13, 9), random(3, *((20, 9) if transpose_b else (9, 20))) / np.float32(3)
    other = halves(b).transpose(1, 2) if transpose_b else halves(b)
    check(batch_matmul, problem, [a.astype(np.float16), b.astype(np.float16)], halves(a) @ other)


def test_what_computes_in_float32_reads_halves() -> None:
    data, weight = random(1, 20, 11, 13), random(20, 1, 3, 3)
    short = blocked(data, 8).astype(np.float16)
    windows = Depthwise(1, 20, 11, 13, (3, 3), (1, 1), (1,) * 4)
    sums = functional.conv2d(halves(data), torch.from_numpy(weight), None, 1, 1, 1, 20)
    check(depthwise, windows, [short, depthwise.pack_weight(windows, weight)], sums, 1e-5)
    pool = Pool2d("avg", 1, 20, 11, 13, 6, 7, (3, 3), (2, 2), (1,) * 4)
    check(pool2d, pool, [short], functional.avg_pool2d(halves(data), 3, 2, 1), 1e-5)


def test_long_sums_do_not_stick() -> None:
    """In half precision alone a sum of ones ends at 2,048, where one more is lost."""
    problem = Matmul(1, 8, 6000, operand=FLOAT16)
    ones = np.ones((8, 6000), np.float32)
    found = run(matmul, problem, [ones[:1].astype(np.float16), matmul.pack_weight(problem, ones)], (1, 8))
    np.testing.assert_array_equal(found, 6000)


def test_rounding_is_that_of_pytorch() -> None:
    values = np.concatenate([random(4000) * np.float32(10.0) ** np.arange(-8, 8).repeat(250), [65519, 65520, np.inf]])
    values = values.astype(np.float32)
    source = te.placeholder(values.shape, "float32", "x")
    short = te.compute(values.shape, lambda i: narrow(source[i].asobject(), "float16"), name="short")
    long = te.compute(values.shape, lambda i: widen(short[i].asobject()), name="long")
    library = tvm.compile(te.create_prim_func([source, short, long]), target={"kind": "llvm", "mcpu": "haswell"})
    arrays = [
        tvm.runtime.tensor(array) for array in (values, np.zeros(values.shape, np.float16), np.zeros_like(values))
    ]
    library["main"](*arrays)
    np.testing.assert_array_equal(arrays[-1].numpy(), halves(values).numpy())

"""The schedules for AVX-512, run on any processor with AVX2: LLVM makes two vectors of each of theirs.

So layouts, loops, tiles and remainders of 16 lanes are those that a processor with AVX-512 gets, and only the choice of
instructions is not. What multiplies pairs of bfloat16 there is a function in LLVM's language, around one instruction;
here its body is the same in float32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import test_bfloat16
import torch
from kernel_harness import blocked, check, random
from test_winograd import check as check_winograd
from torch.nn import functional

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d
from lvc.backends.tvm.cpu.kernels.batch_matmul import BatchMatmul
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.conv_transpose2d import ConvTranspose2d
from lvc.backends.tvm.cpu.kernels.depthwise import Depthwise
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.kernels.pool2d import Pool2d
from lvc.backends.tvm.cpu.kernels.winograd import Winograd
from lvc.backends.tvm.cpu.vector import Vector

SAME = (1, 1, 1, 1)
WIDE = Vector(Avx512())
ON_AVX2: dict[str, Any] = {"vector": WIDE, "mcpu": "haswell"}
BLOCKED: dict[str, Any] = {"in_block": 16, "out_block": 16}

CONVOLUTIONS = [
    pytest.param(Conv2d(1, 64, 14, 14, 128, (3, 3), padding=SAME, **BLOCKED), id="3x3"),
    pytest.param(Conv2d(2, 35, 9, 11, 19, (3, 3), (2, 2), (1, 0, 2, 1), **BLOCKED), id="ragged, uneven padding"),
    pytest.param(Conv2d(1, 96, 7, 7, 24, (1, 1), **BLOCKED), id="pointwise"),
    pytest.param(Conv2d(1, 40, 13, 13, 80, (1, 1), (2, 2), **BLOCKED), id="pointwise, stride 2"),
    pytest.param(Conv2d(1, 32, 13, 9, 16, (3, 3), padding=(6,) * 4, dilation=(6, 6), **BLOCKED), id="dilated"),
    pytest.param(Conv2d(1, 3, 23, 21, 40, (7, 7), (2, 2), (3,) * 4, in_block=0, out_block=16), id="first layer"),
    pytest.param(Conv2d(1, 96, 7, 7, 96, (3, 3), padding=SAME, groups=4, **BLOCKED), id="groups across blocks"),
]


def operands_of(problem: Conv2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and weights."""
    p = problem
    weight = random(p.out_channels, p.in_channels // p.groups, *p.kernel) / p.geometry.depth**0.5
    return torch.from_numpy(random(p.batch, p.in_channels, p.height, p.width)), torch.from_numpy(weight).float()


def convolved(problem: Conv2d, data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    p = problem
    top, left, bottom, right = p.padding
    padded = functional.pad(data, (left, right, top, bottom))
    return functional.conv2d(padded, weight, None, p.stride, 0, p.dilation, p.groups)


@pytest.mark.parametrize("problem", CONVOLUTIONS)
def test_convolution(problem: Conv2d) -> None:
    data, weight = operands_of(problem)
    operands = [blocked(data.numpy(), problem.in_block), conv2d.pack_weight(problem, weight.numpy())]
    check(conv2d, problem, operands, convolved(problem, data, weight), **ON_AVX2)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(("channels", "size"), [((32, 48), 14), ((20, 35), 13)])
def test_winograd(channels: tuple[int, int], size: int, tile: int) -> None:
    plain = Conv2d(1, channels[0], size, size, channels[1], (3, 3), padding=SAME, **BLOCKED)
    check_winograd(Winograd(plain, tile), **ON_AVX2)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution(stride: int) -> None:
    problem = ConvTranspose2d(1, 35, 5, 6, 19, (3, 3), (stride, stride), SAME, (stride - 1,) * 2, **BLOCKED)
    data, weight = random(1, 35, 5, 6), random(35, 19, 3, 3) / 18
    pair = torch.from_numpy(data), torch.from_numpy(weight).float()
    sums = functional.conv_transpose2d(*pair, None, stride, 1, stride - 1)
    operands = [blocked(data, 16), conv_transpose2d.pack_weight(problem, pair[1].numpy())]
    check(conv_transpose2d, problem, operands, sums, **ON_AVX2)


@pytest.mark.parametrize(
    ("size", "stride", "windows"), [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (3, 1, 3)]
)
def test_depthwise_convolution(size: int, stride: int, windows: int) -> None:
    problem = Depthwise(1, 40, 15, 17, (size, size), (stride, stride), (size // 2,) * 4, block=16, multiplier=windows)
    data, weight = random(1, 40, 15, 17), random(40 * windows, 1, size, size)
    sums = functional.conv2d(torch.from_numpy(data), torch.from_numpy(weight), None, stride, size // 2, 1, 40)
    check(depthwise, problem, [blocked(data, 16), depthwise.pack_weight(problem, weight)], sums, **ON_AVX2)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling(kind: str) -> None:
    problem = Pool2d(kind, 1, 20, 11, 13, 6, 7, (3, 3), (2, 2), SAME, block=16)
    data = random(1, 20, 11, 13)
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    check(pool2d, problem, [blocked(data, 16)], pool(torch.from_numpy(data), 3, 2, 1), **ON_AVX2)


@pytest.mark.parametrize("size", [(1, 100, 40), (197, 48, 64), (50, 37, 31), (5, 3, 7)])
def test_linear(size: tuple[int, int, int]) -> None:
    m, n, k = size
    problem, data, weight = Matmul(m, n, k, 16), random(m, k), random(n, k)
    sums = torch.from_numpy(data) @ torch.from_numpy(weight).T
    check(matmul, problem, [data, matmul.pack_weight(problem, weight)], sums, **ON_AVX2)


@pytest.mark.parametrize("transposed", [False, True])
def test_batch_matmul(transposed: bool) -> None:
    a, b = random(3, 17, 24), random(3, *((37, 24) if transposed else (24, 37)))
    right = torch.from_numpy(b).mT if transposed else torch.from_numpy(b)
    problem = BatchMatmul(3, 17, 37, 24, transposed, block=16)
    check(batch_matmul, problem, [a, b], torch.from_numpy(a) @ right, **ON_AVX2)


def dot_in_float32(lanes: int) -> str:
    """The function that multiplies pairs of bfloat16, for processors that have no instruction for it."""
    sums, words_ = f"<{lanes} x float>", f"<{lanes} x i32>"
    return f"""
define {sums} @lvc_dot_bf16_{lanes}({sums} %sums, {words_} %left, {words_} %right) {{
  %a = and {words_} %left, splat (i32 -65536)
  %b = and {words_} %right, splat (i32 -65536)
  %c = shl {words_} %left, splat (i32 16)
  %d = shl {words_} %right, splat (i32 16)
  %af = bitcast {words_} %a to {sums}
  %bf = bitcast {words_} %b to {sums}
  %cf = bitcast {words_} %c to {sums}
  %df = bitcast {words_} %d to {sums}
  %second = fmul {sums} %af, %bf
  %first = fmul {sums} %cf, %df
  %partial = fadd {sums} %sums, %second
  %total = fadd {sums} %partial, %first
  ret {sums} %total
}}
"""


def rounding_in_integers(lanes: int) -> str:
    """The function that rounds float32 to bfloat16, to nearest and ties to even; for finite numbers."""
    floats, words_, bits = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{lanes} x i16>"
    return f"""
define {bits} @lvc_round_bf16({floats} %value) alwaysinline {{
  %bits = bitcast {floats} %value to {words_}
  %high = lshr {words_} %bits, splat (i32 16)
  %odd = and {words_} %high, splat (i32 1)
  %half = add {words_} %bits, splat (i32 32767)
  %total = add {words_} %half, %odd
  %kept = lshr {words_} %total, splat (i32 16)
  %rounded = trunc {words_} %kept to {bits}
  ret {bits} %rounded
}}
"""


@dataclasses.dataclass(frozen=True)
class InFloat32(Avx512):
    """The instructions are arithmetic that any processor has."""

    dots: tuple[str, ...] = ("bfloat16",)

    def declarations(self, element: str) -> str:
        products = "".join(map(dot_in_float32, (self.lanes, self.lanes // 2, self.lanes // 4)))
        return products + rounding_in_integers(self.lanes)


@dataclasses.dataclass(frozen=True)
class AddsNothing(InFloat32):
    """The instruction does not do its work."""

    def declarations(self, element: str) -> str:
        nothing = dot_in_float32(16).replace("%total = fadd", "%unused = fadd")
        return nothing.replace("ret <16 x float> %total", "ret <16 x float> %sums")


WITH_DOTS = Vector(InFloat32())


def test_a_step_is_a_call_of_the_instruction() -> None:
    """One in its place that adds nothing shows that there is no other arithmetic."""
    problem = Matmul(5, 32, 16, 16, BFLOAT16)
    operands = [bfloat16.to_bits(random(5, 16)), matmul.pack_weight(problem, random(32, 16))]
    test_bfloat16.check(matmul, problem, operands, torch.zeros(5, 32), Vector(AddsNothing()))


@pytest.mark.parametrize("problem", [p for p in CONVOLUTIONS if p.values[0].in_block])  # type: ignore[union-attr]
def test_convolution_of_pairs(problem: Conv2d) -> None:
    problem = dataclasses.replace(problem, operand=BFLOAT16)
    data, weight = operands_of(problem)
    sums = convolved(problem, test_bfloat16.rounded(data.numpy()), test_bfloat16.rounded(weight.numpy()))
    operands = [bfloat16.to_bits(blocked(data.numpy(), 16)), conv2d.pack_weight(problem, weight.numpy())]
    test_bfloat16.check(conv2d, problem, operands, sums, WITH_DOTS)


@pytest.mark.parametrize("size", [(1, 40, 64), (7, 19, 33), (50, 37, 2)])
def test_linear_of_pairs(size: tuple[int, int, int]) -> None:
    m, n, k = size
    problem, data, weight = Matmul(m, n, k, 16, BFLOAT16), random(m, k), random(n, k) / k**0.5
    operands = [bfloat16.to_bits(data), matmul.pack_weight(problem, weight.astype("float32"))]
    sums = test_bfloat16.rounded(data) @ test_bfloat16.rounded(weight.astype("float32")).T
    test_bfloat16.check(matmul, problem, operands, sums, WITH_DOTS)


@pytest.mark.parametrize("transposed", [False, True])
def test_batch_matmul_of_pairs(transposed: bool) -> None:
    problem = BatchMatmul(3, 17, 37, 9, transposed, operand=BFLOAT16, block=16)
    a, b = random(3, 17, 9), random(3, *((37, 9) if transposed else (9, 37))) / 3
    b = b.astype("float32")
    right = test_bfloat16.rounded(b).mT if transposed else test_bfloat16.rounded(b)
    operands = [bfloat16.to_bits(a), bfloat16.to_bits(b)]
    test_bfloat16.check(batch_matmul, problem, operands, test_bfloat16.rounded(a) @ right, WITH_DOTS)

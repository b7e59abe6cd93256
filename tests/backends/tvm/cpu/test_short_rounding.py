"""Rounding to bfloat16 by an instruction: where it is taken, and that it rounds as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kernels.kernel_harness import random
from tvm import te, tirx
from tvm.s_tir import Schedule

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu.objects import compile_function
from lvc.backends.tvm.cpu.short_rounding import ROUNDED_LANES
from lvc.backends.tvm.cpu.targets import llvm_options, native, vector_of
from lvc.backends.tvm.plain_functions import ALIGNED
from lvc.compiler.backend import Target
from lvc.compiler.load import from_module

INSTRUCTION = "vcvtneps2bf16"


def assembly(target: str, narrow: Any = bfloat16.narrow) -> str:
    """The code that rounds 64 numbers."""
    processor = Target.parse(target)
    vector, source = vector_of(processor), te.placeholder((64,), "float32", "x")
    schedule = Schedule(
        te.create_prim_func([source, te.compute((64,), lambda i: narrow(source[i].asobject()), name="y")])
    )
    (lane,) = schedule.get_loops(schedule.get_sblock("y"))
    _, lane = schedule.split(lane, [None, vector.lanes])
    schedule.vectorize(lane)
    function = schedule.mod["main"].with_attr("global_symbol", "k").with_attr(ALIGNED, vector.bytes)
    if vector.isa.rounds_bfloat16:
        function = function.with_attr(ROUNDED_LANES, vector.lanes)
    return compile_function(function, "k", dict(llvm_options(processor)), is_assembly=True).code.decode()


@pytest.mark.parametrize(
    ("target", "count"), [("znver4", 4), ("sapphirerapids", 4), ("x86-64-v4", 0), ("x86-64-v3", 0)]
)
def test_where_there_is_one(target: str, count: int) -> None:
    assert assembly(target).count(INSTRUCTION) == count


def test_other_arithmetic_stays() -> None:
    def towards_zero(value: Any) -> Any:
        return tirx.Cast(bfloat16.BITS, tirx.reinterpret("int32", value) >> 16)

    assert INSTRUCTION not in assembly("znver4", towards_zero)


@pytest.mark.skipif(not vector_of(native()).isa.rounds_bfloat16, reason="this processor has no such instruction")
def test_it_rounds_as_pytorch_does() -> None:
    halves = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38, np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    numbers = np.concatenate([halves, *(random(5000) * np.float32(10.0**power) for power in range(-35, 36, 7))])
    numbers[np.abs(numbers) < np.finfo(np.float32).tiny] = 0  # of which the instruction makes zero
    numbers = np.resize(numbers, 16 * (len(numbers) // 16))

    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu().to(torch.bfloat16).float() - (-x).relu().to(torch.bfloat16).float()

    import lvc

    model = from_module(Rounded(), torch.zeros(1, len(numbers)))
    found = lvc.load(lvc.compile(model, "fuse-operators", "native"))(numbers[None])
    np.testing.assert_array_equal(found[0], model(numbers[None])[0][0])

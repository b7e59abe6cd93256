"""The code for processors with AVX-512, which this suite may run without: what the innermost loops are made of."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from test_bfloat16 import SAME, build

from lvc.backends.tvm import BACKEND, bfloat16
from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.cpu.kernels import conv2d, matmul
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.nest import UNROLL

INSTRUCTIONS = {FLOAT32: "vfmadd231ps", BFLOAT16: "vdpbf16ps"}
OPERANDS = [pytest.param(operand, id=operand.name) for operand in INSTRUCTIONS]
BLOCKED: dict[str, Any] = {"in_block": 16, "out_block": 16}


def assembly(kernel: Any, problem: Any, data: tuple[int, ...], cpu: str) -> list[str]:
    """The lines of a kernel's code."""
    target = BACKEND.parse_target(cpu)
    assert target is not None
    operand: DotOperand = problem.operand
    operands = [np.zeros(data, operand.element), np.zeros(kernel.packed_shape(problem), operand.packed)]
    options = targets.llvm_options(target)
    library = build(kernel, problem, operands, targets.vector_of(target), options)
    return str(library.mod.inspect_source("asm")).splitlines()


def hottest_loop(lines: list[str], instruction: str) -> list[str]:
    """Of the loops that hold no other, that with the most of an instruction."""
    labels = {line.rstrip(":"): place for place, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    jumps = [(place, re.match(r"\s+j\w+\s+(\.L\w+)", line)) for place, line in enumerate(lines)]
    loops = [(labels[to[1]], place) for place, to in jumps if to and labels.get(to[1], place) < place]
    inner = [loop for loop in loops if not any(loop[0] <= a and b < loop[1] for a, b in loops)]
    return max((lines[a : b + 1] for a, b in inner), key=lambda body: sum(instruction in line for line in body))


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("cpu", ["znver4", "sapphirerapids"])
def test_a_convolution_keeps_its_sums_in_registers(cpu: str, operand: DotOperand) -> None:
    problem = Conv2d(1, 64, 28, 28, 64, (3, 3), padding=SAME, operand=operand, **BLOCKED)
    knobs = conv2d.choose_knobs(problem, targets.vector_of(BACKEND.parse_target(cpu)))
    loop = hottest_loop(assembly(conv2d, problem, (1, 4, 28, 28, 16), cpu), INSTRUCTIONS[operand])
    steps = [line for line in loop if INSTRUCTIONS[operand] in line]
    assert len(steps) == UNROLL * knobs.vectors * knobs.pixels
    assert all("zmm" in line for line in steps)
    scalars = [line for line in loop if re.search(r"vp?broadcast\w+\s+[^,]*\(%r|1to16", line)]
    assert len(scalars) == UNROLL * knobs.pixels  # each from memory in one instruction
    assert not [line for line in loop if "(%rsp" in line or "(%rbp" in line]


@pytest.mark.parametrize("operand", OPERANDS)
def test_a_scalar_that_is_used_once_comes_from_memory(operand: DotOperand) -> None:
    problem = Conv2d(1, 64, 14, 14, 16, (1, 1), operand=operand, **BLOCKED)
    loop = hottest_loop(assembly(conv2d, problem, (1, 4, 14, 14, 16), "znver4"), INSTRUCTIONS[operand])
    steps = [line for line in loop if INSTRUCTIONS[operand] in line]
    assert steps
    assert all("{1to16}" in line for line in steps)


@pytest.mark.parametrize("operand", OPERANDS)
def test_a_linear_layer_keeps_its_sums_in_registers(operand: DotOperand) -> None:
    problem = Matmul(196, 256, 256, 16, operand)
    loop = hottest_loop(assembly(matmul, problem, (196, 256), "znver4"), INSTRUCTIONS[operand])
    steps = [line for line in loop if INSTRUCTIONS[operand] in line]
    knobs = matmul.choose_knobs(problem, targets.vector_of(BACKEND.parse_target("znver4")))
    assert len(steps) == knobs.unroll * knobs.vectors * knobs.rows
    assert not [line for line in loop if "(%rsp" in line or "(%rbp" in line]


def test_bfloat16_halves_the_steps() -> None:
    plain = Conv2d(1, 64, 28, 28, 64, (3, 3), padding=SAME, **BLOCKED)
    long, short = (dataclasses.replace(plain, operand=operand) for operand in INSTRUCTIONS)
    assert short.geometry.depth * 2 == long.geometry.depth
    assert np.prod(conv2d.packed_shape(short)) * 2 == np.prod(conv2d.packed_shape(long))
    assert short.operand.element == bfloat16.BITS

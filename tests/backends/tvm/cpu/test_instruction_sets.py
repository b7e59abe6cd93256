"""Instruction sets as values: which one a processor has, and what happens with one that lacks a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from sketch import Sketch
from test_integer import convolution

from lvc.backends.tvm.cpu.architectures.x86_64 import X86_64
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.program import Program
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer

AARCH64 = 183  # in the header of an ELF file
OPTIONS = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}


@dataclass(frozen=True)
class OnlyFloats(InstructionSet):
    """Four lanes, and no way to multiply anything but float32: what a new instruction set begins with."""

    name: ClassVar[str] = "a stand-in"
    feature: ClassVar[str] = "none"
    lanes: ClassVar[int] = 4
    registers: ClassVar[int] = 32


PLAIN = CpuCodeGenerator(Vector(OnlyFloats()), OPTIONS)


def linear(dtype: torch.dtype) -> Model:
    sketch = Sketch()
    weight = torch.arange(-40, 40, dtype=torch.int8).reshape(4, 20)
    sums = sketch.call(integer.linear, sketch.input(5, 20, dtype=dtype), sketch.stored(weight), None, 0, group="linear")
    return sketch.model(sketch.call(integer.rescale, sums, sketch.stored(torch.rand(4)), 1, group="linear"))


def product() -> Model:
    sketch = Sketch()
    data = [sketch.input(2, 4, 8, dtype=torch.uint8), sketch.input(2, 8, 4, dtype=torch.int8)]
    sums = sketch.call(integer.matmul, *data, 3, 0, group="product")
    return sketch.model(sketch.call(integer.rescale, sums, sketch.stored(torch.rand(1)), 0, group="product"))


def convolved(groups: int = 1) -> Model:
    sketch = Sketch()
    data = sketch.input(1, 8, 6, 6, dtype=torch.uint8)
    return sketch.model(convolution(sketch, data, 8, groups=groups))


@pytest.mark.parametrize(
    ("model", "node"),
    [
        pytest.param(convolved, "conv2d", id="convolution"),
        pytest.param(lambda: linear(torch.uint8), "linear", id="linear, uint8"),
        pytest.param(lambda: linear(torch.int8), "linear", id="linear, int8"),
        pytest.param(product, "matmul", id="product"),
    ],
)
def test_integers_are_refused_in_a_sentence(model: object, node: str) -> None:
    with pytest.raises(CompileError) as caught:
        lower(model(), PLAIN)  # type: ignore[operator]
    assert caught.value.what == "no dot product for int8 on this target yet"
    assert caught.value.why.startswith(node)
    assert "(from sketch) needs it, and lvc knows no instruction of a stand-in" in caught.value.why
    assert "float32" in caught.value.help


def machine_code(program: Program) -> set[int]:
    """The processors of all kernels of a program, by ELF's numbers."""
    made = [PLAIN.compile(step, f"k_{i}") for i, step in enumerate(program.steps)]
    assert not any(one.refused for one in made)
    return {int.from_bytes(one.code[18:20], "little") for one in made}


def test_floats_and_integers_without_dot_products_compile_for_another_processor() -> None:
    sketch = Sketch()
    conv = sketch.conv(sketch.input(1, 8, 6, 6), 12, 3, group="conv")
    assert machine_code(lower(sketch.model(conv), PLAIN)) == {AARCH64}
    assert machine_code(lower(convolved(groups=8), PLAIN)) == {AARCH64}


@pytest.mark.parametrize("isa", [Sse(), Avx2(), Avx512(), OnlyFloats()])
def test_a_step_of_a_part_that_is_not_there_is_no_code(isa: InstructionSet) -> None:
    for element in ("uint8", "bfloat16"):
        with pytest.raises(CompileError, match=f"no dot product for {element}"):
            isa.dot(element, None, None, None)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_processor_has_the_widest_it_can_run(cpu: str) -> None:
    features = CPUS[cpu].features
    isa = CPUS[cpu].architecture.widest(features)
    assert isa.feature in features
    assert isa.lanes == (16 if "avx512f" in features else 8 if "avx2" in features else 4)
    assert {isa.dot_features[element] for element in isa.dots} == features & set(isa.dot_features.values())
    assert {isa.matrix_features[one] for one in isa.matrices} == features & set(isa.matrix_features.values())


def test_parts_of_instruction_sets() -> None:
    widest = X86_64.widest
    assert widest(CPUS["znver4"].features).dots == ("bfloat16", "uint8")
    assert widest(CPUS["x86-64-v4"].features) == Avx512()
    assert widest(CPUS["x86-64-v3"].features | {"avxvnni"}) == Avx2(("uint8",))
    assert widest(()) == Sse()
    assert X86_64.parts_that_multiply("bfloat16") == ["avx512bf16"]

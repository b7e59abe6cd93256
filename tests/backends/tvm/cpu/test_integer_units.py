"""Integer kernels for vector units that this machine may lack: the same schedules, with plain arithmetic of the same
meaning in the place of each instruction. Sixteen lanes are legalised by LLVM to what the machine has."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from test_integer import DTYPES, check_exact, convolution, whole
from tvm import tirx

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.cpu import code_generator, targets
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet
from lvc.backends.tvm.cpu.vector import Vector
from lvc.compiler.ir.operators import integer


def word_bytes(words: Any, is_signed: bool) -> list[Any]:
    """The bytes of 32-bit words, the lowest first, as 32-bit numbers."""
    like = bfloat16.like
    high = [words << like(24 - 8 * place, words) >> like(24, words) for place in range(4)]
    return high if is_signed else [byte & like(0xFF, words) for byte in high]


def dot(sums: Any, weights: Any, data: Any) -> Any:
    """What vpdpbusd adds."""
    pairs = zip(word_bytes(weights, True), word_bytes(data, False), strict=True)
    return reduce(add, (left * right for left, right in pairs), sums)


def pairs(weights: Any, data: Any) -> Any:
    """What vpmaddubsw makes, but that it wraps around where that saturates."""
    lanes = weights.ty.dtype.lanes
    products = [a * b for a, b in zip(word_bytes(weights, True), word_bytes(data, False), strict=True)]
    mask, shift = bfloat16.like(0xFFFF, weights), bfloat16.like(16, weights)
    words = ((products[0] + products[1]) & mask) | ((products[2] + products[3]) << shift)
    return tirx.reinterpret(f"int16x{2 * lanes}", words)


def pair_dot(left: Any, right: Any) -> Any:
    """What vpmaddwd makes."""
    lanes = left.ty.dtype.lanes // 2
    a, b = (tirx.reinterpret(f"int32x{lanes}", halves) for halves in (left, right))
    shift = bfloat16.like(16, a)
    return (a << shift >> shift) * (b << shift >> shift) + (a >> shift) * (b >> shift)


@dataclass(frozen=True)
class StandIn(InstructionSet):
    """Plain arithmetic in the place of each instruction, and a note of which were used."""

    used: set[str] = field(default_factory=set, compare=False, repr=False)

    def dot(self, element: str, sums: Any, left: Any, right: Any) -> Any:
        assert element in self.dots
        self.used.add("dot")
        return dot(sums, left, right)

    def sum_of_two(self, left: Any, right: Any) -> Any:
        self.used.add("sum_of_two")
        return pairs(left, right)

    def dot_of_two(self, left: Any, right: Any) -> Any:
        self.used.add("dot_of_two")
        return pair_dot(left, right)


@dataclass(frozen=True)
class Wide(StandIn, Avx512):
    pass


@dataclass(frozen=True)
class Narrow(StandIn, Avx2):
    pass


UNITS = {
    "avx512_vnni": Vector(Wide(("uint8",))),
    "avx_vnni": Vector(Narrow(("uint8",))),
    "avx512bw": Vector(Wide()),
}


@pytest.fixture(params=UNITS, scope="module")
def unit(request: pytest.FixtureRequest) -> Any:
    """Let models be built for a vector unit; give it, and the names of the instructions that were used."""
    patch, vector = pytest.MonkeyPatch(), UNITS[request.param]
    patch.setenv("LVC_CACHE", "")
    for module in (targets, code_generator):
        patch.setattr(module, "vector_of", lambda *_, **_options: vector)
    yield vector, vector.isa.used
    patch.undo()


@pytest.mark.usefixtures("unit")
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from([torch.uint8, *DTYPES]))
    limits = torch.iinfo(dtype)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = (groups * draw(st.integers(1, 36)) for _ in range(2))
    size = (1, inputs, draw(st.integers(5, 9)), draw(st.integers(5, 12)))
    sketch = Sketch()
    node = convolution(
        sketch,
        sketch.input(*size, dtype=dtype),
        outputs,
        kernel=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        zero=draw(st.sampled_from([limits.min, limits.max, 0, 100])),
        seed=draw(st.integers(0, 3)),
        shrink=draw(st.sampled_from([1, 2, 5, 20])),
    )
    check_exact(sketch.model(node), whole(draw(st.integers(0, 3)), dtype, *size))


@pytest.mark.parametrize(("depth", "shrink"), [(40, 1), (40, 2), (77, 1)])
def test_linear_layers(unit: tuple[Vector, set[str]], depth: int, shrink: int) -> None:
    """Four products an operand where the depth allows it, and without VNNI where the weights are small enough."""
    vector, used = unit
    used.clear()
    sketch = Sketch()
    weight = torch.from_numpy(whole(1, torch.int8, 37, depth)) // shrink
    sums = sketch.call(
        integer.linear, sketch.input(5, depth, dtype=torch.uint8), sketch.stored(weight), None, 11, group="linear"
    )
    scale = sketch.stored(torch.rand(37) * 0.001)
    model = sketch.model(sketch.call(integer.rescale, sums, scale, 1, group="linear"))
    check_exact(model, np.full((5, depth), 255, np.uint8))
    dots = vector.isa.dots
    quads = {"dot"} if dots else {"sum_of_two", "dot_of_two"}
    assert used == (quads if depth % 4 == 0 and (dots or shrink > 1) else {"dot_of_two"})


@pytest.mark.parametrize("depth", [32, 49])
def test_products_of_matrices(unit: tuple[Vector, set[str]], depth: int) -> None:
    _, used = unit
    used.clear()
    sketch = Sketch()
    shapes = [(3, 17, depth), (3, depth, 21)]
    inputs = [sketch.input(*shape, dtype=dtype) for shape, dtype in zip(shapes, DTYPES, strict=True)]
    sums = sketch.call(integer.matmul, *inputs, 255, -128, group="product")
    scale = sketch.stored(torch.tensor([0.001]))
    model = sketch.model(sketch.call(integer.rescale, sums, scale, 0, group="product"))
    check_exact(model, *(whole(1, dtype, *shape) for dtype, shape in zip(DTYPES, shapes, strict=True)))
    assert used == {"dot_of_two"}

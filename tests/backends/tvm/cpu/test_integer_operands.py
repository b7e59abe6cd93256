"""The steps of integer kernels: which operands and chains the weights allow, and that none of them saturates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from test_integer import check_exact, whole
from torch.fx import Node

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.integer_layers import saturating_steps
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerPair, IntegerQuad
from lvc.backends.tvm.cpu.kernels.integer_storage import narrowed, stored_bits
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.program import Program
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer


def bell(seed: int, spread: float, *shape: int) -> torch.Tensor:
    """Weights of a normal distribution, limited to 8 bits."""
    values = np.random.default_rng(seed).standard_normal(shape) * spread
    return torch.from_numpy(values.round().clip(-127, 127).astype(np.int8))


def layer(weight: torch.Tensor, size: int = 9, zero: int = 5, dtype: torch.dtype = torch.uint8) -> Model:
    """A convolution with a weight, whose sums are the output."""
    sketch = Sketch()
    data = sketch.input(1, weight.shape[1], size, size, dtype=dtype)
    same = [[1, 1], [weight.shape[2] // 2] * 2, [1, 1]]
    sums = sketch.call(integer.conv2d, data, sketch.stored(weight), None, zero, *same, 1, group="conv")
    scale = sketch.stored(torch.rand(weight.shape[0]))
    return sketch.model(sketch.call(integer.rescale, sums, scale, 1, group="conv"))


def lowered(model: Model, target: str = "x86-64-v3") -> Program:
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    return lower(model, CpuCodeGenerator.of(parsed))


def operand_of(program: Program) -> object:
    (step,) = [step for step in program.steps if "conv2d" in step.nodes[0]]
    return step.schedule.problem.operand  # type: ignore[attr-defined]


CHAINS = [(10, 2, 2), (22, 2, 1), (31, 1, 0)]


@pytest.mark.parametrize(("spread", "chain", "masked"), CHAINS)
def test_the_spread_of_the_weights_decides_how_much_is_summed_in_16_bits(spread: int, chain: int, masked: int) -> None:
    weight = bell(1, spread, 24, 40, 3, 3).clamp(-96, 96)
    if masked == 1:
        weight = weight.clamp(-63, 63)
    assert operand_of(lowered(layer(weight))) == IntegerQuad(5, chain, masked)
    check_exact(layer(weight), whole(1, torch.uint8, 1, 40, 9, 9))


def test_weights_that_are_all_large_are_multiplied_in_pairs() -> None:
    weight = bell(1, 200, 24, 40, 3, 3)
    assert operand_of(lowered(layer(weight))) == IntegerPair(5)
    check_exact(layer(weight), whole(1, torch.uint8, 1, 40, 9, 9))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_no_step_saturates(data: st.DataObject) -> None:
    """At the ends of the data's type, whatever the mixture of weights that can saturate and such that cannot."""
    draw = data.draw
    shape = draw(st.integers(1, 20)), draw(st.integers(1, 36)), *[draw(st.sampled_from([1, 3]))] * 2
    weight = bell(draw(st.integers(0, 9)), draw(st.sampled_from([2, 8, 20, 30, 40, 60])), *shape)
    if draw(st.booleans()):
        weight[0, 0] = draw(st.sampled_from([-128, 127]))
    size = (1, shape[1], 9, 9)
    ends = [np.full(size, 255, np.uint8), whole(1, torch.uint8, *size), whole(0, torch.uint8, *size)]
    check_exact(layer(weight, zero=draw(st.sampled_from([0, 5, 255]))), draw(st.sampled_from(ends)))


def with_one_step_at_risk(weight: torch.Tensor, place: int) -> torch.Tensor:
    """Eight large weights side by side, of one output and from one input on."""
    weight[place % len(weight), place // 8 * 8 : place // 8 * 8 + 8] = 63
    return weight


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("place", [0, 37, 79])
def test_a_convolution_looks_at_the_mask_of_each_group(kernel: int, place: int) -> None:
    weight = with_one_step_at_risk(bell(place, 4, 24, 80, kernel, kernel), place)
    model = layer(weight)
    zero = 5 if kernel > 1 else 0  # where no data lies outside, kernels for all zero points are one
    assert operand_of(lowered(model)) == IntegerQuad(zero, 2, 1)
    check_exact(model, np.full((1, 80, 9, 9), 255, np.uint8))


@pytest.mark.parametrize("depth", [8, 200])
@pytest.mark.parametrize("place", [0, 6, 199])
def test_a_linear_layer_looks_at_the_mask_of_each_group(depth: int, place: int) -> None:
    weight = with_one_step_at_risk(bell(place, 4, 21, depth), place % depth)
    sketch = Sketch()
    sums = sketch.call(integer.linear, sketch.input(5, depth, dtype=torch.uint8), sketch.stored(weight), None, 7)
    scale = sketch.stored(torch.rand(21))
    model = sketch.model(sketch.call(integer.rescale, sums, scale, 1))
    (step,) = [step for step in lowered(model).steps if "linear" in step.nodes[0]]
    assert step.schedule.problem.operand == IntegerQuad(0, 2, 1)  # type: ignore[attr-defined]
    check_exact(model, np.full((5, depth), 255, np.uint8))


def test_a_step_is_masked_exactly_where_16_bits_may_not_do() -> None:
    packed = np.zeros((1, 4, 8, 4), np.int8)
    packed[0, 0, 3, :2] = 64  # 128 * 255 is the most that fits
    packed[0, 1, 3, 0] = 1  # one more with the four before
    packed[0, 2, 0, 2:] = -64
    packed[0, 3, 0, :] = [64, -64, 127, -128]
    words = packed.view(np.int32)[..., 0]
    assert saturating_steps(words, 1).tolist() == [[False] * 4]
    assert saturating_steps(words, 2).tolist() == [[True, True]]
    packed[0, 3, 0, :] = [64, 65, 0, 0]
    assert saturating_steps(words, 1).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("element", ["int8", "int16", "float32"])
def test_small_weights_take_half_a_byte(element: str) -> None:
    packed = np.arange(-8, 8).repeat(2).astype(element)
    assert stored_bits(packed) == 4
    assert narrowed(packed, element, 4).tolist() == [
        (low & 15) | (high << 4) for low, high in zip(range(-8, 0), range(8), strict=True) for _ in range(2)
    ]


def stored_bytes(program: Program) -> int:
    return sum(values.nbytes for _, values in program.constants)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize(("spread", "share"), [(40, 1.1), (2, 0.6)])
def test_weights_are_stored_in_few_bits_and_widened_when_loaded(
    dtype: torch.dtype, spread: float, share: float
) -> None:
    weight = bell(3, spread, 64, 64, 3, 3)
    if spread == 2:
        weight = weight.clamp(-8, 7)
    model = layer(weight, dtype=dtype)
    program = lowered(model)
    assert stored_bytes(program) < share * weight.numel()
    assert stored_bytes(lowered(model, "znver4")) < share * weight.numel()
    check_exact(model, whole(2, dtype, 1, 64, 9, 9))


def test_depthwise_weights_are_stored_in_eight_bits() -> None:
    sketch = Sketch()
    data = sketch.input(1, 32, 9, 9, dtype=torch.uint8)
    weight = bell(0, 40, 32, 1, 3, 3)
    node: Node = sketch.call(
        integer.conv2d, data, sketch.stored(weight), None, 3, [1, 1], [1, 1], [1, 1], 32, group="conv"
    )
    model = sketch.model(sketch.call(integer.rescale, node, sketch.stored(torch.rand(32)), 1, group="conv"))
    constants = [values for _, values in lowered(model).constants if values.size == weight.numel()]
    assert [values.dtype for values in constants] == [np.int8]
    check_exact(model, whole(1, torch.uint8, 1, 32, 9, 9))

"""Elementwise operators against PyTorch, plain and blocked, with channels that do not fill their blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sketch import Sketch, check, numbers

import lvc
from lvc.backends.tvm import BACKEND
from lvc.compiler.backend import Target
from lvc.compiler.pipeline.workspace import Workspace

aten = torch.ops.aten

ANY = (
    aten.relu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.gelu.default,
    aten.mish.default,
    aten.softplus.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.exp.default,
    aten.abs.default,
    aten.neg.default,
    aten.floor.default,
    aten.ceil.default,
    aten.round.default,
    aten.sign.default,
    aten.erf.default,
    aten.sin.default,
    aten.cos.default,
    aten.tan.default,
    aten.atan.default,
    aten.sinh.default,
    aten.cosh.default,
    aten.asinh.default,
    aten.dropout.default,
)
POSITIVE = (aten.log.default, aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default)
UNIT = (aten.asin.default, aten.acos.default, aten.atanh.default)


@pytest.mark.parametrize("channels", [5, 8])
def test_functions_of_one_operand(channels: int) -> None:
    sketch = Sketch()
    plain, positive, unit = (sketch.input(1, channels, 3, 7) for _ in range(3))
    arguments = {aten.dropout.default: (0.5, False)}
    outputs = [sketch.call(op, plain, *arguments.get(op, ())) for op in ANY]
    outputs += [sketch.call(op, positive) for op in POSITIVE]
    outputs += [sketch.call(op, unit) for op in UNIT]
    outputs.append(sketch.call(aten.acosh.default, sketch.call(aten.add.Tensor, positive, 1)))
    outputs.append(sketch.call(aten.gelu.default, plain, approximate="tanh"))
    outputs.append(sketch.call(aten.elu.default, plain, 0.7, 1.2, 0.9))
    outputs.append(sketch.call(aten.softplus.default, plain, 2.0, 3.0))
    shape = (1, channels, 3, 7)
    check(sketch.model(*outputs), numbers(*shape), numbers(*shape, low=0.01), numbers(*shape, low=-0.99, high=0.99))


def test_blocked_values_that_are_not_total() -> None:
    """The lanes past the last channel are zeros; what divides by them must not poison what is computed from it."""
    sketch = Sketch()
    data = sketch.input(1, 3, 4, 4)
    value = sketch.call(aten.abs.default, sketch.conv(data, 5))
    for op in (aten.log.default, aten.exp.default, aten.rsqrt.default, aten.reciprocal.default):
        value = sketch.call(aten.abs.default, sketch.call(op, sketch.call(aten.add.Tensor, value, 1e-3)))
        value = sketch.call(aten.clamp.default, value, 0.1, 2.0)
    value = sketch.call(aten.div.Tensor, value, sketch.call(aten.abs.default, sketch.conv(data, 5)))
    check(sketch.model(sketch.conv(value, 6)), numbers(1, 3, 4, 4), tolerance=1e-4)


def test_two_operands() -> None:
    sketch = Sketch()
    left, right = sketch.input(2, 5, 3), sketch.input(5, 1)
    ops = (aten.add, aten.sub, aten.mul, aten.div, aten.remainder, aten.fmod, aten.eq, aten.ne, aten.lt, aten.le)
    outputs = [sketch.call(op.Tensor, left, right) for op in (*ops, aten.gt, aten.ge)]
    two = sketch.stored(torch.tensor(2.0))
    outputs += [sketch.call(op.Tensor, left, two) for op in ops]
    outputs += [sketch.call(op.Tensor, left, 2.0) for op in ops[:4]]
    outputs += [sketch.call(op.default, left, right) for op in (aten.maximum, aten.minimum)]
    outputs.append(sketch.call(aten.add.Tensor, left, right, alpha=0.3))
    outputs.append(sketch.call(aten.sub.Tensor, left, 4, alpha=2))
    outputs.append(sketch.call(aten.div.Tensor, left, 3.0))
    outputs += [sketch.call(aten.clamp.default, left, low, high) for low, high in ((None, 1), (-1, None), (0, 2.5))]
    squares = sketch.call(aten.mul.Tensor, left, left)
    for exponent in (0.5, 1.0, 2.0, 3.0, -0.5, -1.0, 1.7):
        outputs.append(sketch.call(aten.pow.Tensor_Tensor, squares, sketch.stored(torch.tensor(exponent))))
    outputs.append(sketch.call(aten.pow.Tensor_Tensor, squares, right))
    check(
        sketch.model(*outputs),
        numbers(2, 5, 3),
        np.array([[1.5], [-2], [0.7], [3], [-0.4]], np.float32),
        tolerance=1e-4,
    )


def test_truth_is_chosen_a_vector_at_a_time() -> None:
    sketch = Sketch()
    x, first, second = sketch.input(2, 64), *(sketch.input(2, 64, dtype=torch.bool) for _ in range(2))
    above = sketch.call(aten.gt.Tensor, x, sketch.stored(torch.tensor(0.0)))
    chosen = [
        sketch.call(aten.where.self, above, *pair) for pair in ((first, second), (above, second), (second, above))
    ]
    model = sketch.model(*chosen)
    artefact = BACKEND.build(model, Target.parse("native"), Workspace(threads=1))
    assert artefact.metadata["remarks"] == []
    random = np.random.default_rng(0)
    check(model, numbers(2, 64), *(random.random((2, 64)) < 0.5 for _ in range(2)))


def test_logic_and_types() -> None:
    sketch = Sketch()
    x, i, b = sketch.input(3, 4), sketch.input(3, 4, dtype=torch.int64), sketch.input(3, 1, dtype=torch.bool)
    positive = sketch.call(aten.gt.Tensor, x, sketch.stored(torch.tensor(0.0)))
    three = sketch.stored(torch.tensor(3))
    outputs = [sketch.call(op.default, positive, b) for op in (aten.logical_and, aten.logical_or, aten.logical_xor)]
    outputs += [sketch.call(aten.logical_not.default, positive), sketch.call(aten.logical_not.default, i)]
    outputs += [
        sketch.call(aten.isnan.default, x),
        sketch.call(aten.isinf.default, x),
        sketch.call(aten.isnan.default, i),
    ]
    outputs += [
        sketch.call(aten.where.self, b, x, sketch.stored(torch.tensor(2.0))),
        sketch.call(aten.add.Tensor, i, x),
    ]
    outputs += [sketch.call(aten.div.Tensor, i, 3), sketch.call(aten.remainder.Tensor, i, three)]
    outputs += [
        sketch.call(aten.fmod.Tensor, i, three),
        sketch.call(aten.mul.Tensor, i, 2),
        sketch.call(aten.mul.Tensor, i, 0.5),
    ]
    for dtype in (torch.int64, torch.int32, torch.bool, torch.float64, torch.float32):
        outputs += [sketch.call(aten.to.dtype, value, dtype) for value in (i, b)]
    outputs += [sketch.call(aten.sign.default, i), sketch.call(aten.abs.default, i), sketch.call(aten.neg.default, i)]
    values = numbers(3, 4)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    integers = np.arange(-6, 6).reshape(3, 4)
    check(sketch.model(*outputs), values, integers, np.array([[True], [False], [True]]))


def test_channel_parameters() -> None:
    sketch = Sketch()
    data = sketch.conv(sketch.input(2, 3, 4, 5), 11)
    one, many = sketch.stored(torch.tensor([0.3])), sketch.stored(torch.rand(11))
    prelu = [sketch.call(aten.prelu.default, data, weight) for weight in (one, many)]
    scaled = sketch.call(aten.mul.Tensor, data, sketch.stored(torch.rand(11, 1, 1)))
    check(sketch.model(*prelu, scaled), numbers(2, 3, 4, 5))
    rounded = Sketch()
    data = rounded.input(2, 11, 4, 5)
    scale, zero = (
        rounded.stored(torch.rand(11) / 10 + 0.05),
        rounded.stored(torch.randint(-5, 5, (11,), dtype=torch.int32)),
    )
    channels = rounded.call(aten.fake_quantize_per_channel_affine.default, data, scale, zero, 1, -128, 127)
    whole = rounded.call(aten.fake_quantize_per_tensor_affine.default, data, 0.05, 3, 0, 255)
    check(rounded.model(channels, whole), numbers(2, 11, 4, 5))


@pytest.mark.parametrize("channels", [5, 8])
def test_dropout_between_kernels_and_inside_one(channels: int) -> None:
    sketch = Sketch()
    image = sketch.input(1, 3, 6, 7)
    conv = sketch.conv(image, channels, 3)
    last = sketch.call(aten.dropout.default, sketch.call(aten.relu.default, conv), 0.5, False)
    inner = sketch.call(aten.exp.default, sketch.call(aten.dropout.default, conv, 0.5, False))
    check(sketch.model(last, inner), numbers(1, 3, 6, 7))


def test_whole_remainder_by_zero_ends_no_process() -> None:
    sketch = Sketch()
    x, y = (sketch.input(4, dtype=torch.int64) for _ in range(2))
    model = sketch.model(*[sketch.call(op, x, y) for op in (aten.remainder.Tensor, aten.fmod.Tensor)])
    least = np.iinfo(np.int64).min
    run = lvc.load(lvc.compile(model, "O0", "native", verify=False))
    found = run(np.array([7, least, -7, 7]), np.array([0, -1, 3, -3]))
    assert [part[1:].tolist() for part in found] == [[0, 2, -2], [0, -1, 1]]


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_division_by_the_number_zero(zero: float) -> None:
    sketch = Sketch()
    x = sketch.input(1, 5)
    stored = sketch.stored(torch.tensor(float(zero)))
    operators = (aten.div.Tensor, aten.remainder.Tensor, aten.fmod.Tensor)
    model = sketch.model(*[sketch.call(op, x, stored) for op in operators], sketch.call(aten.div.Tensor, x, zero))
    check(model, np.array([[1.5, -2.0, 0.0, np.inf, np.nan]], np.float32), tolerance=0)

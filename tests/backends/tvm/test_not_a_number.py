"""What is no number stays none: native code on NaN and infinities, against PyTorch.

Operators are built once for each layout: a plain vector, and the channels of a convolution that they are fused with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sketch import Sketch, aten
from torch.fx import Node

import lvc
from lvc.backends.tvm import BACKEND
from lvc.compiler.ir.dialect import BY_NAME
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, 1, -1, 0.3, 2.5, -2.5, 3.5, -7, 50, -89, 89, -200, 1e30, -1e30], "f4")
Operator = Callable[..., Node]  # from a sketch and its operands

FUNCTIONS = (
    *("relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "gelu", "mish", "softplus", "elu", "leaky_relu"),
    *("exp", "log", "sqrt", "rsqrt", "reciprocal", "abs", "neg", "floor", "ceil", "round", "sign", "erf", "sin", "cos"),
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "logical_not", "isnan", "isinf"),
)
EPILOGUES = (
    *FUNCTIONS[:13],
    *("erf", "sqrt", "gelu, tanh", "leaky_relu, 0", "clamp below", "clamp above", "clamp to 6", "mul 0", "fmod inf"),
)
PAIRS = ("add", "sub", "mul", "div", "remainder", "fmod", "eq", "ne", "lt", "le", "gt", "ge")
BOTH = ("maximum", "minimum", "logical_and", "logical_or", "logical_xor")


def _call(name: str, *more: Any, **named: Any) -> Operator:
    overload = BY_NAME[name].overload
    return lambda sketch, *operands, **how: sketch.call(overload, *operands, *more, **named, **how)


def _scalar(name: str, number: float) -> Operator:
    return lambda sketch, x, **how: _call(name)(sketch, x, sketch.stored(torch.tensor(number)), **how)


UNARY: dict[str, Operator] = {name: _call(name) for name in FUNCTIONS} | {
    "gelu, tanh": _call("gelu", approximate="tanh"),
    "elu, scaled": _call("elu", 0.7, 1.2, 0.9),
    "softplus, sharp": _call("softplus", 2.0, 3.0),
    "leaky_relu, 0": _call("leaky_relu", 0.0),
    "clamp below": _call("clamp", -1.0),
    "clamp above": _call("clamp", None, 1.0),
    "clamp to 6": _call("clamp", 0, 6),
    "clamp, wide": _call("clamp", -2.0, 2.0),
    "to bool": _call("to", torch.bool),
    "mul 0": _scalar("mul", 0.0),
    "mul -0": _scalar("mul", -0.0),
    "div 0": _scalar("div", 0.0),
    "remainder inf": _scalar("remainder", torch.inf),
    "fmod inf": _scalar("fmod", torch.inf),
    "pow 1.7": _scalar("pow", 1.7),
    "pow 2": _scalar("pow", 2.0),
    "ne 1": _scalar("ne", 1.0),
}


def _logic(sketch: Sketch, x: Node, y: Node) -> Node:
    """Not less, though not greater or equal either: what no order of numbers would give."""
    less, rest = (sketch.call(op.Tensor, x, y, group="logic") for op in (aten.lt, aten.ge))
    either = sketch.call(aten.logical_or.default, less, rest, group="logic")
    return sketch.call(aten.logical_not.default, either, group="logic")


def _choice(sketch: Sketch, x: Node, y: Node) -> Node:
    unlike = sketch.call(aten.logical_not.default, sketch.call(aten.lt.Tensor, x, y, group="where"), group="where")
    return sketch.call(aten.where.self, unlike, x, y, group="where")


BINARY: dict[str, Operator] = {name: _call(name) for name in PAIRS + BOTH} | {
    "add 0 times": lambda sketch, x, y: sketch.call(aten.add.Tensor, x, y, alpha=0),
    "sub, same": lambda sketch, x, _: sketch.call(aten.sub.Tensor, x, x),
    "logic": _logic,
    "where": _choice,
}
REDUCTIONS: dict[str, Operator] = {name: _call(name, [-1], True) for name in ("amax", "amin", "sum", "mean")} | {
    "amax, all": _call("amax", [0, 1, 2, 3]),
    "amax, channels": _call("amax", [1]),
    "amin, first": _call("amin", [0]),
    "prod": lambda sketch, x: sketch.call(aten.prod.dim_int, x, -1),
    "argmax": _call("argmax", -1),
    "argmin, channels": _call("argmin", 1),
    "argmax, all": _call("argmax"),
    "cumsum": _call("cumsum", -1),
    "softmax": lambda sketch, x: sketch.call(aten.softmax.int, x, -1),
    "log_softmax": lambda sketch, x: sketch.call(aten.log_softmax.int, x, 1),
    "norm 0": _call("linalg_vector_norm", 0.0, [1]),
    "norm 1": _call("linalg_vector_norm", 1.0, [1]),
    "norm 2": _call("linalg_vector_norm", 2.0, [1]),
    "norm inf": _call("linalg_vector_norm", torch.inf, [1]),
    "norm -inf": _call("linalg_vector_norm", -torch.inf, [-1]),
    "max_pool2d": _call("max_pool2d", [3, 3], [2, 2], [1, 1]),
    "max_pool2d, dilated": _call("max_pool2d", [2, 3], [1, 1], [1, 1], [2, 1]),
    "avg_pool2d": _call("avg_pool2d", [3, 3], [2, 2], [1, 1]),
    "adaptive_avg_pool2d": lambda sketch, x: sketch.call(aten.adaptive_avg_pool2d.default, x, [3, 4]),
    "upsample_nearest2d": lambda sketch, x: sketch.call(aten.upsample_nearest2d.vec, x, [13, 22], None),
}
PICTURE = (2, 4, 7, 35)


def picture() -> np.ndarray:
    """Numbers with NaN and infinities at a few places, some of them at edges; one channel of minus infinity."""
    draw = np.random.default_rng(0)
    values = draw.uniform(-3, 3, PICTURE).astype(np.float32)
    for special in (np.nan, np.inf, -np.inf):
        values[tuple(draw.integers(size, size=9) for size in PICTURE)] = special
    values[0, 0, 0, 0], values[0, 0, 3, -1], values[0, 2, 2, -9], values[1, 1, 2] = np.nan, np.nan, np.inf, -np.inf
    return values


@cache
def plain() -> tuple[Model, tuple[str, ...], list[np.ndarray]]:
    """Every operator alone; two operands meet in all combinations."""
    sketch, n = Sketch(), len(SPECIAL)
    x, y, z = sketch.input(n * n), sketch.input(n * n), sketch.input(*PICTURE)
    outputs = [op(sketch, x) for op in UNARY.values()]
    outputs += [op(sketch, x, y) for op in BINARY.values()]
    outputs += [op(sketch, z) for op in REDUCTIONS.values()]
    pairs = np.meshgrid(SPECIAL, SPECIAL)
    inputs = [*(np.ascontiguousarray(part.reshape(-1)) for part in pairs), picture()]
    return sketch.model(*outputs), (*UNARY, *BINARY, *REDUCTIONS), inputs


@cache
def blocked() -> tuple[Model, tuple[str, ...], list[np.ndarray]]:
    """Functions fused with convolutions that hand on one channel, and reductions behind one; lanes past the last."""
    sketch = Sketch()
    x, z = sketch.input(1, 1, 3, len(SPECIAL)), sketch.input(2, 1, *PICTURE[2:])
    weight = sketch.stored(torch.tensor([1.0, -1.0, 2.0] * 6).reshape(18, 1, 1, 1))

    def copies(of: Node, group: str = "") -> Node:
        return sketch.call(aten.conv2d.default, of, weight, None, [1, 1], [0, 0], [1, 1], 1, group=group)

    outputs = [UNARY[name](sketch, copies(x, name), group=name) for name in EPILOGUES]
    outputs += [op(sketch, copies(z)) for op in REDUCTIONS.values()]
    inputs = [np.stack([np.roll(SPECIAL, k) for k in range(3)])[None, None], picture()[:, :1]]
    return sketch.model(*outputs), (*EPILOGUES, *REDUCTIONS), inputs


@cache
def results(what: Callable[[], Any], target: str) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """What native code and PyTorch make of each operator."""
    model, names, inputs = what()
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    found = BACKEND.load(BACKEND.build(model, parsed, Workspace(threads=2)), 1)(*inputs)
    return dict(zip(names, zip(found, model(*inputs), strict=True), strict=True))


def check(what: Callable[[], Any], target: str, name: str) -> None:
    found, wanted = results(what, target)[name]
    if name == "gelu":  # PyTorch's vectors have NaN for the gelu of infinity, its single elements infinity
        wanted = np.where(np.isnan(wanted) & np.isposinf(found), found, wanted)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", [*UNARY, *BINARY, *REDUCTIONS])
def test_alone(name: str) -> None:
    check(plain, "native", name)


@pytest.mark.parametrize("name", [*EPILOGUES, *REDUCTIONS])
def test_behind_a_convolution(name: str) -> None:
    check(blocked, "native", name)


def test_no_integer_stands_for_nan() -> None:
    """It becomes the lowest one; infinities become the ends."""
    sketch = Sketch()
    x = sketch.input(4, 16)
    codes = sketch.call(torch.ops.lvc.quantise.default, x, 0.1, 3, -128, 127)
    simulated = sketch.call(aten.fake_quantize_per_tensor_affine.default, x, 0.1, 3, -128, 127)
    model = sketch.model(codes, simulated)
    target = BACKEND.parse_target("native")
    assert target is not None
    values = np.full((4, 16), 1.26, np.float32)
    values[0], values[1], values[2] = np.nan, np.inf, -np.inf
    found = BACKEND.load(BACKEND.build(model, target, Workspace(threads=1)), 1)(values)
    np.testing.assert_array_equal(found[0], np.repeat([[-128], [127], [-128], [16]], 16, 1))
    np.testing.assert_array_equal(found[0], model(values)[0])
    np.testing.assert_allclose(found[1], np.repeat([[-13.1], [12.4], [-13.1], [1.3]], 16, 1), rtol=1e-6)


class Deep(torch.nn.Module):
    """Blocked values with lanes past the last channel; of what is infinite they must make no NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 18, 1)
        self.second = torch.nn.Conv2d(18, 20, 3, padding=1)
        for parameter in self.parameters():
            parameter.data.abs_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.first(x)
        pooled = torch.nn.functional.max_pool2d(x.relu(), 3, 2, 1)
        return (
            torch.nn.functional.relu6(self.second(pooled)),
            self.second(x),
            self.second(torch.nn.functional.silu(x) + 1),
            x.amax((2, 3)),
        )


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.isa("avx512bf16"))])
def test_networks(precision: str) -> None:
    net, x = Deep().eval(), torch.rand(1, 1, 20, 24) * 4
    x[0, 0, 3, 4], x[0, 0, 10, 11], x[0, 0, 0, 0], x[0, 0, 17, 20] = torch.nan, torch.inf, torch.nan, -torch.inf
    with torch.inference_mode():
        wanted = [value.numpy() for value in net(x)]
    artefact = lvc.compile(lvc.from_module(net, x), "O1", "native", precision=precision, verify=False)
    for found, right in zip(lvc.load(artefact, threads=1)(x.numpy()), wanted, strict=True):
        tolerance = 1e-5 if precision == "fp32" else 1e-2
        size = tolerance * np.abs(right[np.isfinite(right)]).max(initial=1)
        np.testing.assert_allclose(found, right, rtol=tolerance, atol=size)


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax(function: object) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x, -1)  # type: ignore[operator, no-any-return]

    x = torch.zeros(4, 40)
    x[1] = -torch.inf
    x[2, 3], x[3, 5] = -torch.inf, torch.nan
    found = lvc.load(lvc.compile(lvc.from_module(Net(), x), "O2", "native", verify=False))(x.numpy())
    np.testing.assert_allclose(found, Net()(x).numpy(), rtol=1e-5)

"""Integer kernels against their definitions, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from torch.fx import Node
from tvm import ir
from tvm.s_tir import Schedule

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerPair, IntegerQuad
from lvc.backends.tvm.cpu.targets import llvm_options, vector_of
from lvc.backends.tvm.lower import lower
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import functions, integer
from lvc.compiler.pipeline.workspace import Workspace

aten = torch.ops.aten
DTYPES = [torch.uint8, torch.int8]


def whole(seed: int, dtype: torch.dtype, *shape: int) -> np.ndarray:
    """Random numbers of a type; every other seed, only the ends of the type."""
    random, limits = np.random.default_rng(seed), torch.iinfo(dtype)
    values = random.integers(limits.min, limits.max + 1, shape)
    ends = random.choice([limits.min, limits.max], shape)
    return torch.from_numpy(ends if seed % 2 else values).to(dtype).numpy()


def check_exact(model: Model, *inputs: np.ndarray, target: str = "native") -> None:
    """Build a model and compare every byte of its outputs with PyTorch's."""
    parsed = BACKEND.parse_target(target)
    assert parsed is not None
    artefact = BACKEND.build(model, parsed, Workspace(threads=2))
    assert artefact.metadata["remarks"] == []  # no plain schedules, which would be right too, and slow
    executable = BACKEND.emulate(artefact, 1)
    for found, wanted in zip(executable(*inputs), model(*inputs), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def convolution(sketch: Sketch, data: Node, channels: int, **options: object) -> Node:
    """A convolution with a bias, requantised for each channel."""
    given = {
        "kernel": (3, 3),
        "stride": 1,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
        "zero": 7,
        "seed": 0,
        "shrink": 1,
    } | options
    shape, seed = data.meta["spec"].shape, int(given["seed"])  # type: ignore[call-overload]
    weight = torch.from_numpy(whole(seed, torch.int8, channels, shape[1] // given["groups"], *given["kernel"]))  # type: ignore[operator,misc]
    weight = weight.div(given["shrink"], rounding_mode="trunc").to(torch.int8)
    random = np.random.default_rng(seed)
    bias = torch.from_numpy(random.integers(-50_000, 50_000, channels)).to(torch.int32)
    pairs = [[given[name]] * 2 for name in ("stride", "padding", "dilation")]
    stored = sketch.stored(weight), sketch.stored(bias)
    sums = sketch.call(integer.conv2d, data, *stored, given["zero"], *pairs, given["groups"], group="conv")
    multiplier = torch.from_numpy(random.uniform(1e-4, 1e-3, channels).astype(np.float32))
    return sketch.call(integer.requantise, sums, sketch.stored(multiplier), 1, -11, -128, 120, group="conv")


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    limits = torch.iinfo(dtype)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs, outputs = (groups * draw(st.integers(1, 24)) for _ in range(2))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    size = (draw(st.integers(1, 2)), inputs, draw(st.integers(7, 15)), draw(st.integers(7, 20)))
    sketch = Sketch()
    node = convolution(
        sketch,
        sketch.input(*size, dtype=dtype),
        outputs,
        kernel=kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        zero=draw(st.sampled_from([limits.min, limits.max, 0, 100])),
        seed=draw(st.integers(0, 3)),
        shrink=draw(st.sampled_from([1, 2])),
    )
    check_exact(sketch.model(node), whole(draw(st.integers(0, 3)), dtype, *size))


@pytest.mark.parametrize(("groups", "size"), [(5, 8), (8, 4), (2, 56), (3, 24), (3, 6), (3, 12), (2, 20)])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_groups_that_begin_within_blocks(groups: int, size: int, target: str) -> None:
    sketch, shape = Sketch(), (1, groups * size, 7, 9)
    data = sketch.input(*shape, dtype=torch.uint8)
    node = convolution(sketch, data, groups * size, groups=groups, shrink=2)
    check_exact(sketch.model(node), whole(1, torch.uint8, *shape), target=target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stride", "kernel", "windows"), [(1, 3, 1), (2, 5, 1), (1, 3, 3)])
def test_depthwise_convolutions(dtype: torch.dtype, stride: int, kernel: int, windows: int) -> None:
    sketch = Sketch()
    data = sketch.input(1, 20, 15, 17, dtype=dtype)
    options = {"kernel": (kernel, kernel), "stride": stride, "padding": kernel // 2, "groups": 20, "seed": stride}
    check_exact(sketch.model(convolution(sketch, data, 20 * windows, **options)), whole(stride, dtype, 1, 20, 15, 17))


OPERANDS = [(torch.uint8, 1, "native", IntegerPair), (torch.uint8, 2, "native", IntegerQuad)]
OPERANDS += [(torch.int8, 2, "native", IntegerPair), (torch.uint8, 1, "znver4", IntegerQuad)]


@pytest.mark.parametrize(("dtype", "shrink", "target", "operand"), OPERANDS)
def test_operands_are_chosen_by_proof(dtype: torch.dtype, shrink: int, target: str, operand: type) -> None:
    """Weights of 8 bits at their ends would saturate sums of two in 16 bits; halves of them cannot."""
    sketch = Sketch()
    size = (1, 16, 6, 9)
    convolution(sketch, sketch.input(*size, dtype=dtype), 8, seed=1, shrink=shrink, zero=3)
    model = sketch.model(list(sketch.graph.nodes)[-1])
    parsed = BACKEND.parse_target("x86-64-v3" if target == "native" else target)
    assert parsed is not None
    (step,) = [step for step in lower(model, CpuCodeGenerator.of(parsed)).steps if "conv2d" in step.nodes[0]]
    assert isinstance(step.schedule.problem.operand, operand)  # type: ignore[attr-defined]
    if target == "native":
        check_exact(model, whole(1, dtype, *size))


@pytest.mark.parametrize(
    ("cpu", "instruction"), [("znver4", "vpdpbusd"), ("x86-64-v4", "vpmaddwd"), ("x86-64-v3", "vpmaddwd")]
)
def test_the_code_has_the_instructions_of_its_target(cpu: str, instruction: str) -> None:
    sketch = Sketch()
    model = sketch.model(convolution(sketch, sketch.input(1, 32, 8, 8, dtype=torch.uint8), 32, seed=1))
    parsed = BACKEND.parse_target(cpu)
    assert parsed is not None
    (step,) = [step for step in lower(model, CpuCodeGenerator.of(parsed)).steps if "conv2d" in step.nodes[0]]
    schedule = Schedule(step.function)
    step.schedule(schedule, vector_of(parsed))
    function = schedule.mod["main"].with_attr("global_symbol", "kernel")
    library = tvm.compile(ir.IRModule({"kernel": function}), target=llvm_options(parsed))
    lines = [line for line in library.mod.inspect_source("asm").splitlines() if instruction in line]
    assert len(lines) > 8
    assert all(("%zmm" if cpu != "x86-64-v3" else "%ymm") in line for line in lines)


def test_depthwise_sums_beyond_single_precision_are_exact() -> None:
    sketch = Sketch()
    size = (1, 8, 25, 25)
    node = convolution(sketch, sketch.input(*size, dtype=torch.uint8), 8, kernel=(25, 25), padding=0, groups=8, zero=0)
    weight = next(n for n in sketch.graph.nodes if n.op == "get_attr" and len(n.meta["spec"].shape) == 4)
    torch.nn.init.constant_(getattr(sketch.module, str(weight.target)), 127)
    data = np.full(size, 255, np.uint8)
    data[:, :, ::3] = 254  # sums of 20 million that are no multiples of two
    data[:, 0, 0, 0] = 253
    sums = node.args[0]
    assert isinstance(sums, Node)
    check_exact(sketch.model(node, sums), data)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "depth", "shrink"), [(1, 40, 2), (1, 77, 1), (5, 40, 1), (5, 78, 2)])
def test_linear_layers(dtype: torch.dtype, rows: int, depth: int, shrink: int) -> None:
    sketch = Sketch()
    data = sketch.input(rows, depth, dtype=dtype)
    values = torch.from_numpy(whole(rows, torch.int8, 21, depth)).div(shrink, rounding_mode="trunc")
    weight = sketch.stored(values.to(torch.int8))
    bias = sketch.stored(torch.arange(21, dtype=torch.int32) * -999)
    sums = sketch.call(integer.linear, data, weight, bias, 11, group="linear")
    scale = sketch.stored(torch.rand(21) * 0.001)
    check_exact(
        sketch.model(sketch.call(integer.rescale, sums, scale, 1, group="linear")), whole(1, dtype, rows, depth)
    )


FUNCTIONS = {name: (getattr(functions, name), ()) for name in ("sigmoid", "silu", "hardsigmoid", "hardswish")}
FUNCTIONS |= {"tanh": (functions.tanh, ()), "mish": (functions.mish, ()), "elu": (functions.elu, (1.3, 0.7, 0.9))}
FUNCTIONS |= {f"gelu {name}": (functions.gelu, (name,)) for name in ("none", "tanh")}


def applied(sketch: Sketch, name: str, operand: Node, group: str = "") -> Node:
    """A function of an operand."""
    operator, rest = FUNCTIONS[name]
    return sketch.call(operator, operand, *rest, group=group)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_between_sums_and_rounding(name: str) -> None:
    """Of sums, a factor a channel, in the kernel of the layer: no product meets a sum, so that none can be fused."""
    sketch = Sketch()
    data = sketch.input(1, 8, 9, 9, dtype=torch.uint8)
    weight = sketch.stored(torch.from_numpy(whole(3, torch.int8, 16, 8, 3, 3)))
    sums = sketch.call(integer.conv2d, data, weight, None, 7, [1, 1], [1, 1], [1, 1], 1, group="conv")
    scale = sketch.stored(torch.rand(16, generator=torch.Generator().manual_seed(5)) * 3e-4)
    real = applied(sketch, name, sketch.call(integer.rescale, sums, scale, 1, group="conv"), "conv")
    factor = sketch.stored(torch.rand(1, 16, 1, 1, generator=torch.Generator().manual_seed(6)) + 0.5)
    scaled = sketch.call(aten.mul.Tensor, real, factor, group="conv")
    node = sketch.call(integer.quantise, scaled, 0.011, 13, 0, 255, group="conv")
    check_exact(sketch.model(node), whole(0, torch.uint8, 1, 8, 9, 9))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_any_number(name: str) -> None:
    sketch = Sketch()
    small = (
        torch.randn(3, 1, 400, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1.0, 20, 1e-6])[:, None, None]
    )
    every = torch.cat([small.reshape(1, 1200), torch.tensor([[0.0, -0.0, 1e38, -1e38, 3, -3, 87.4, -87.4]])], 1)
    check_exact(sketch.model(applied(sketch, name, sketch.input(1, 1208, dtype=torch.float32))), every.numpy())


def elementwise(sketch: Sketch, name: str) -> Node:
    """An elementwise operator on what comes of a convolution, so that it lies in blocks."""
    left = convolution(sketch, sketch.input(1, 5, 6, 7, dtype=torch.uint8), 11, seed=2)
    if name == "add":
        right = sketch.call(aten.clamp.default, left, -5, None)
        return sketch.call(integer.add, left, 0.7331085205078125, -11, right, 1.9e-3, -5, 128, 0, 255)
    if name == "mul":
        gate = sketch.call(integer.sum_pool2d, left, -11, [6, 7], [6, 7], [0, 0])
        small = sketch.call(integer.requantise, gate, sketch.stored(torch.tensor([0.01])), 0, 3, 0, 255)
        sums = sketch.call(integer.mul, left, -11, small, 3)
        return sketch.call(integer.requantise, sums, sketch.stored(torch.tensor([0.003])), 0, 0, -128, 127)
    if name == "table":
        table = torch.from_numpy(whole(4, torch.uint8, 256))
        return sketch.call(integer.table, left, sketch.stored(table))
    if name in FUNCTIONS:
        real = sketch.call(integer.dequantise, left, 0.6, -11)
        return applied(sketch, name, real)
    if name == "sum_pool2d":
        return sketch.call(integer.sum_pool2d, left, -11, [3, 2], [2, 2], [1, 1])
    if name == "max_pool2d":
        return sketch.call(aten.max_pool2d.default, left, [3, 3], [2, 2], [1, 1])
    real = sketch.call(integer.dequantise, left, 0.037, -11)
    return sketch.call(integer.quantise, real, 0.021, 99, 0, 255)


@pytest.mark.parametrize("name", ["add", "mul", "table", "sum_pool2d", "max_pool2d", "quantise", *FUNCTIONS])
def test_elementwise_operators_and_pools(name: str) -> None:
    sketch = Sketch()
    check_exact(sketch.model(elementwise(sketch, name)), whole(0, torch.uint8, 1, 5, 6, 7))


def residual(sketch: Sketch, data: Node, seed: int) -> Node:
    """A layer that adds a branch, with numbers of its own wherever an operator takes one, as trained networks have."""
    random = np.random.default_rng(seed)
    zeros, factors = random.integers(2, 100, 4).tolist(), random.uniform(0.2, 1.8, 4).tolist()
    grown = convolution(sketch, data, 8, kernel=(1, 1), padding=0, zero=zeros[0], seed=seed)
    group, geometry = f"addition {seed}", ([1, 1], [0, 0], [1, 1], 1)
    sums = sketch.call(integer.conv2d, grown, *layer(sketch, 8, 8, seed), -11, *geometry, group=group)
    scale = sketch.stored(torch.from_numpy(random.uniform(1e-4, 1e-3, 8).astype(np.float32)))
    small = sketch.call(integer.requantise, sums, scale, 1, zeros[1], 0, 255, group=group)
    operands = (small, factors[0], zeros[1], grown, factors[1], -11)
    total = sketch.call(integer.add, *operands, zeros[2], 3, 250, group=group)
    real = sketch.call(integer.dequantise, total, factors[2], zeros[2])
    whole_again = sketch.call(integer.quantise, real, factors[3], zeros[3], 0, 255)
    products = sketch.call(integer.mul, whole_again, zeros[3], total, zeros[2])
    one = sketch.stored(torch.tensor([0.0123 + seed / 1000]))
    return sketch.call(integer.requantise, products, one, 0, zeros[0], 0, 255)


def layer(sketch: Sketch, out: int, channels: int, seed: int) -> tuple[Node, Node]:
    """A weight of one pixel, and a bias."""
    random = np.random.default_rng(seed + 99)
    weight = sketch.stored(torch.from_numpy(whole(seed, torch.int8, out, channels, 1, 1)))
    return weight, sketch.stored(torch.from_numpy(random.integers(-9_000, 9_000, out)).to(torch.int32))


def test_kernels_that_differ_in_parameters_of_quantisation_alone_are_one() -> None:
    sketch = Sketch()
    data = sketch.input(1, 8, 6, 7, dtype=torch.uint8)
    model = sketch.model(residual(sketch, residual(sketch, residual(sketch, data, 1), 2), 3))
    target = BACKEND.parse_target("znver4")  # without VNNI steps depend on weights and zero points
    assert target is not None
    plan = json.loads(BACKEND.build(model, target, Workspace()).files["plan.json"])
    kernels = [step["kernel"] for step in plan["steps"]]
    each = len(kernels) // 3
    assert kernels[each : 2 * each] == kernels[2 * each : 3 * each]
    check_exact(model, whole(0, torch.uint8, 1, 8, 6, 7))


def test_halves_are_rounded_to_even() -> None:
    sketch = Sketch()
    sums = sketch.input(1, 64, dtype=torch.int32)
    half = sketch.stored(torch.tensor([0.5]))
    values = np.arange(-32, 32, dtype=np.int32).reshape(1, 64)
    model = sketch.model(sketch.call(integer.requantise, sums, half, 1, 0, -128, 127))
    assert model(values)[0][0, :6].tolist() == [-16, -16, -15, -14, -14, -14]
    check_exact(model, values)

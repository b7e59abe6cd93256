"""How often values are moved without being computed with, in each model of the benchmark suite. Nothing is compiled."""

from __future__ import annotations

import pytest
import torch
from sketch import Sketch, aten, check, numbers

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.memory import live_bytes, plan_workspace
from lvc.backends.tvm.program import Program
from lvc.compiler.bench.suite import MODELS
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import WINOGRAD, family
from lvc.compiler.ir.model import Model
from lvc.compiler.load import load
from lvc.compiler.pipeline.pipeline import Pipeline

# kernels that only change the layout of a value, and kernels of the model's own movements that nothing could take in
MOVES = {
    "resnet18": (0, 0),
    "resnet50": (0, 0),
    "mobilenet_v2": (0, 0),
    "mobilenet_v3_small": (0, 0),
    "squeezenet1_1": (0, 0),
    "efficientnet_b0": (0, 0),
    "shufflenet_v2_x1_0": (0, 54),  # 58 channels do not divide: each unit slices, concatenates and shuffles lanes
    "densenet121": (0, 0),
    "regnet_y_400mf": (0, 0),
    "convnext_tiny": (0, 4),  # before the first convolution of a stage
    "vit_b_16": (0, 3),  # patches as tokens, with one for the class, which is taken out again
    "inception_v3": (0, 0),
}
QUICK = ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x1_0")
WIDTH = 8  # lanes of AVX2: the counts shall not depend on this machine


def program_of(model: Model) -> Program:
    target = BACKEND.parse_target("x86-64-v3")
    assert target is not None
    return lower(model, CpuCodeGenerator.of(target))


def moves(model: Model, program: Program) -> tuple[int, int]:
    """Layout conversions and copies to outputs, then kernels whose operators all are movements."""
    nodes = {node.name: node for node in model.module.graph.nodes}
    conversions = sum(" to " in step.name or step.name.startswith("output ") for step in program.steps)
    is_call = [[nodes[name] for name in step.nodes if nodes[name].op == "call_function"] for step in program.steps]
    moved = sum(bool(calls) and all(family(node) is Family.MOVEMENT for node in calls) for calls in is_call)
    return conversions, moved


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_moves_that_are_left(name: str) -> None:
    model, _ = Pipeline.parse("O2").run(load(f"torchvision.models:{name}"))
    program = program_of(model)
    assert moves(model, program) == MOVES[name]
    assert plan_workspace(program) <= 1.2 * live_bytes(program)


def test_a_movement_is_read_in_passing() -> None:
    sketch = Sketch()
    image = sketch.conv(sketch.input(1, 3, 8, 8), 16, 3)
    rows = sketch.call(aten.permute.default, image, [0, 2, 3, 1])
    weight, bias = sketch.stored(torch.rand(16)), sketch.stored(torch.rand(16))
    normal = sketch.call(aten.layer_norm.default, rows, [16], weight, bias)
    active = sketch.call(aten.gelu.default, normal)
    back = sketch.call(aten.permute.default, active, [0, 3, 1, 2])
    total = sketch.call(aten.add.Tensor, back, image)
    model = sketch.model(total)
    steps = [step.nodes for step in program_of(model).steps]
    assert steps[1:4] == [(rows.name, normal.name), (active.name,), (back.name, total.name)]
    check(model, *(numbers(*value.spec.shape) for value in model.inputs))


def test_a_movement_with_two_readers_is_made_once() -> None:
    sketch = Sketch()
    rows = sketch.call(aten.permute.default, sketch.input(2, 3, 4, 5), [0, 2, 3, 1])
    readers = [sketch.call(overload, rows) for overload in (aten.relu.default, aten.neg.default)]
    model = sketch.model(*readers)
    assert [step.nodes for step in program_of(model).steps] == [(node.name,) for node in (rows, *readers)]
    check(model, *(numbers(*value.spec.shape) for value in model.inputs))


@pytest.mark.parametrize(("both", "steps"), [(False, 2), (True, 3)])
def test_an_output_is_written_in_its_place(both: bool, steps: int) -> None:
    sketch = Sketch()
    pooled = sketch.call(aten.mean.dim, sketch.conv(sketch.input(1, 3, 8, 8), 16, 3), [2, 3], True)
    flat = sketch.call(aten.reshape.default, pooled, [1, 16])
    model = sketch.model(*([pooled, flat] if both else [flat]))
    assert len(program_of(model).steps) == steps
    check(model, *(numbers(*value.spec.shape) for value in model.inputs))


@pytest.mark.parametrize("pad", [[0, 1, 0, 1], [2, 0, 1, 0], [1, 0]])
@pytest.mark.parametrize(("groups", "stride", "allowed"), [(1, 2, 0), (16, 2, 0), (4, 1, 0), (1, 1, 4)])
def test_uneven_zeros_are_the_convolutions_own(pad: list[int], groups: int, stride: int, allowed: int) -> None:
    """As TensorFlow pads: more behind than in front. No kernel copies the image."""
    sketch = Sketch()
    image = sketch.conv(sketch.input(1, 3, 14, 14), 16, 3)
    node = sketch.conv(sketch.call(aten.constant_pad_nd.default, image, pad), 16, 3, stride, groups=groups)
    node.meta[WINOGRAD] = allowed
    model = sketch.model(sketch.call(aten.relu.default, node))
    assert [step.nodes[0] for step in program_of(model).steps][:2] == [image.name, node.name]
    check(model, numbers(1, 3, 14, 14), tolerance=1e-4 if allowed else 2e-5)


def test_other_paddings_stay() -> None:
    sketch = Sketch()
    image = sketch.input(1, 8, 6, 6)
    one = sketch.conv(sketch.call(aten.constant_pad_nd.default, image, [0, 1, 0, 1], 1.0), 8, 3)
    cut = sketch.conv(sketch.call(aten.constant_pad_nd.default, image, [0, 1, -1, 0]), 8, 3)
    deep = sketch.conv(sketch.call(aten.constant_pad_nd.default, image, [0, 0, 0, 0, 0, 8]), 8, 3)
    twice = sketch.call(aten.constant_pad_nd.default, image, [0, 1, 0, 1])
    model = sketch.model(one, cut, deep, twice, sketch.conv(twice, 8, 3))
    names = [name for step in program_of(model).steps for name in step.nodes if name.startswith("constant_pad")]
    assert len(set(names)) == 4
    check(model, numbers(1, 8, 6, 6))


def test_zeros_are_shared_by_all_convolutions_that_read_them() -> None:
    sketch = Sketch()
    padded = sketch.call(aten.constant_pad_nd.default, sketch.input(1, 8, 9, 9), [0, 1, 0, 1])
    model = sketch.model(sketch.conv(padded, 8, 3, 2), sketch.conv(padded, 24, 1))
    assert not any("pad" in name for step in program_of(model).steps for name in step.nodes)
    check(model, numbers(1, 8, 9, 9))

"""Rules: the kernel of a call is that of the first rule which has one for it on this target."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from sketch import Sketch

from lvc.backends.tvm.cpu import kernels, rules
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernels import conv2d, depthwise, matmul, winograd
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import WINOGRAD
from lvc.compiler.ir.model import Model

AVX2 = CpuCodeGenerator(Vector(Avx2()))


def convolution(groups: int = 1, tile: int = 0) -> Model:
    sketch = Sketch()
    conv = sketch.conv(sketch.input(1, 64, 56, 56), 64, 3, groups=groups)
    conv.meta[WINOGRAD] = tile
    return sketch.model(conv)


def product() -> Model:
    sketch = Sketch()
    return sketch.model(sketch.call(aten.linear.default, sketch.input(3, 8), sketch.stored(torch.ones(4, 8))))


def test_every_kernel_that_has_a_rule_is_asked() -> None:
    names = [f"{kernels.__name__}.{item.name}" for item in pkgutil.iter_modules(kernels.__path__)]
    assert {module.anchor for module in map(importlib.import_module, names) if hasattr(module, "anchor")} == set(
        rules.RULES
    )


@pytest.mark.parametrize(
    ("model", "schedule"),
    [
        (convolution(), conv2d.schedule),
        (convolution(groups=64), depthwise.schedule),
        (convolution(tile=4), winograd.schedule),
        (product(), matmul.schedule),
    ],
    ids=["plain", "depthwise", "winograd", "product"],
)
def test_the_first_rule_that_has_a_kernel_is_taken(model: Model, schedule: object) -> None:
    found = [getattr(step.schedule, "function", None) for step in lower(model, AVX2).steps]
    assert schedule in found


def test_rules_are_asked_in_order_with_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def declines(call: Call, vector: Vector) -> Anchor | None:
        asked.append((call.node.name, vector))
        return None

    monkeypatch.setattr(rules, "RULES", (declines, *rules.RULES))
    for generator in (AVX2, CpuCodeGenerator(Vector(Sse()))):
        assert "matmul" in str(lower(product(), generator).steps[0].schedule)
        assert asked.pop() == ("linear_default", generator.vector)
    monkeypatch.setattr(rules, "RULES", (declines,))
    assert isinstance(lower(product(), AVX2).steps[0].schedule, GeneralSchedule)

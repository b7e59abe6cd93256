"""The protocol between the storeys: a kind of device that is nothing but an implementation of it is built for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from sketch import Sketch, aten, numbers
from torch.fx import Node

from lvc.backends.tvm import BACKEND, backend, device
from lvc.backends.tvm.device import Anchor, Assembled, CodeGenerator, Device
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import AsWritten, Program, ScheduleFunction, Step
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Executable, Target
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.memory import Memory
from lvc.compiler.pipeline.workspace import Workspace


@dataclass
class ScriptWriter(CodeGenerator):
    """Code is the text of a kernel; blocks of channels are as wide as those of a group of threads."""

    asked: list[str] = field(default_factory=list)
    block = 32
    alignment = 128
    fingerprint = "scripts"

    def wanted_layout(self, node: Node, operand: Node, layout: Layout) -> Layout:
        return PLAIN if node.target is aten.linear.default else layout

    def anchor(self, call: Call, choice: str = "") -> Anchor | None:
        self.asked.append(call.node.name)
        return None

    def general_schedule(self, *, apart: bool) -> ScheduleFunction:
        return AsWritten()

    def compile(self, step: Step, name: str) -> Object:
        return Object(step.function.script().encode(), (4096,))

    def assemble(
        self, program: Program, kernels: Sequence[str], objects: Mapping[str, Object], memory: Memory
    ) -> Assembled:
        return Assembled({"kernels.txt": b"\n".join(objects[name].code for name in dict.fromkeys(kernels))})


class Scripts(Device):
    """A kind of device with one target, which keeps what it is asked to load."""

    def __init__(self) -> None:
        self.generator = ScriptWriter()
        self.loaded: list[Mapping[str, bytes]] = []

    @property
    def kinds(self) -> Collection[str]:
        return {"script"}

    def targets(self) -> dict[str, str]:
        return {"paper": "kernels as text"}

    def parse_target(self, text: str) -> Target | None:
        return Target(text, "tvm", "script", text) if text == "paper" else None

    def block(self, target: Target) -> int:
        return self.generator.block

    def lacks(self, element: str, target: Target) -> str:
        return f"paper holds no {element}"

    def that_multiply(self, element: str) -> list[str]:
        return ["parchment"]

    def code_generator(self, target: Target, dtypes: Collection[torch.dtype] = ()) -> CodeGenerator:
        return self.generator

    def load(self, files: Mapping[str, bytes], threads: int | None) -> Executable:
        self.loaded.append(files)
        return lambda *inputs: inputs


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Scripts:
    monkeypatch.setenv("LVC_CACHE", str(tmp_path))
    made, known = Scripts(), device.devices()
    for module in (backend, device):
        monkeypatch.setattr(module, "devices", lambda: (*known, made))
    return made


def network() -> Model:
    sketch = Sketch()
    value = sketch.call(aten.relu.default, sketch.conv(sketch.input(1, 3, 6, 6), 40, 3))
    pooled = sketch.call(aten.reshape.default, sketch.call(aten.mean.dim, value, [2, 3], True), [1, 40])
    return sketch.model(sketch.call(aten.linear.default, pooled, sketch.stored(torch.randn(7, 40))))


def built() -> Artefact:
    target = BACKEND.parse_target("paper")
    assert target is not None
    return BACKEND.build(network(), target, Workspace())


def test_a_kind_of_device_is_built_for_through_the_protocol_alone(scripts: Scripts) -> None:
    artefact = built()
    assert set(artefact.files) == {"kernels.txt", "weights.bin", "plan.json"}
    plan = json.loads(artefact.files["plan.json"])
    assert (plan["kind"], plan["cpu"]) == ("script", "paper")
    assert {"conv2d_default", "linear_default"} <= set(scripts.generator.asked)
    shapes = [argument["shape"] for step in plan["steps"] for argument in step["arguments"]]
    assert [1, 2, 6, 6, 32] in shapes  # 40 channels, in the blocks of this device
    assert artefact.files["kernels.txt"].count(b"def main") == len({step["kernel"] for step in plan["steps"]})
    assert artefact.metadata["memory"]["scratch"] == 4096


def test_the_backend_asks_the_kind_that_a_target_is_of(scripts: Scripts) -> None:
    assert BACKEND.targets()["paper"] == "kernels as text"
    assert "native" in BACKEND.targets()
    target = BACKEND.parse_target("paper")
    assert target
    assert BACKEND.channel_multiple(target) == 32
    error = BACKEND.refusal({"bfloat16"}, target)
    assert error
    assert (error.why, "parchment" in error.help) == ("paper holds no bfloat16", True)
    assert BACKEND.refusal({"float32"}, target) is None


def test_an_artefact_is_loaded_by_the_kind_that_its_plan_names(scripts: Scripts) -> None:
    artefact = built()
    assert BACKEND.load(artefact)(numbers(1))[0].shape == (1,)
    assert scripts.loaded == [artefact.files]


def changed(artefact: Artefact, content: bytes) -> Artefact:
    return replace(artefact, files={**artefact.files, "plan.json": content})


def test_a_plan_of_no_known_kind_is_refused(scripts: Scripts) -> None:
    artefact = built()
    plan = json.loads(artefact.files["plan.json"])
    with pytest.raises(CompileError, match="a kind of device that is not known: 'papyrus'"):
        BACKEND.load(changed(artefact, json.dumps({**plan, "kind": "papyrus"}).encode()))
    del plan["kind"]
    with pytest.raises(CompileError, match="damaged") as caught:
        BACKEND.load(changed(artefact, json.dumps(plan).encode()))
    assert "'kind'" in caught.value.why


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "damaged"),
        (b"\xff", "damaged"),
        (b"[]", "another version"),
        (b"{}", "another version"),
        (b'{"version": 3}', "another version"),
        (b'{"version": 4, "kind": []}', "damaged"),
    ],
)
def test_what_is_no_plan_is_refused(content: bytes, what: str, scripts: Scripts) -> None:
    with pytest.raises(CompileError, match=what):
        BACKEND.load(changed(built(), content))

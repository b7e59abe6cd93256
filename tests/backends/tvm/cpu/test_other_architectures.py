"""A processor of another architecture is a record: from its text to object code, and to what it cannot do yet.

What is refused, is refused in a sentence: a code generator that finds no instruction would end the process.
"""

from __future__ import annotations

import json

import pytest
import torch
import torchvision
from test_instruction_sets import AARCH64, OnlyFloats, convolved

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.build import compile_kernels, plan
from lvc.backends.tvm.cpu import toolchain
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.host import check_host, host_architecture
from lvc.backends.tvm.cpu.processor import Architecture, Processor
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module
from lvc.compiler.measure.memory import Memory
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

ARM = Architecture(
    kind="aarch64",
    triple="aarch64-unknown-linux-gnu",
    machines=("a machine that no test runs on",),
    vectors=(OnlyFloats,),
    levels=("cortex-a76",),
    flags="Features",
    names={},
    name_of=lambda _: "",
)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setitem(CPUS, "cortex-a76", Processor("a stand-in", frozenset({"neon"}), architecture=ARM))
    found = BACKEND.parse_target("cortex-a76")
    assert found is not None
    return found


def no_linker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_toolchains", lambda _: iter(()))


def test_a_network_is_object_code_for_another_architecture(target: Target) -> None:
    network = torchvision.models.resnet18(weights=None).eval()
    model, _ = Pipeline.parse("O2").run(from_module(network, torch.zeros(1, 3, 32, 32)))
    generator = CpuCodeGenerator.of(target)
    program = lower(model, generator)
    names, objects = compile_kernels([*program.setup, *program.steps], generator, Workspace(threads=2))
    assert {int.from_bytes(made.code[18:20], "little") for made in objects.values()} == {AARCH64}
    assert not any(made.refused for made in objects.values())
    written = json.loads(json.dumps(plan(program, names, target, Memory(0, 0, 0, 0, 0, 0), generator)))
    assert (written["kind"], written["cpu"], written["features"]) == ("aarch64", "cortex-a76", ["neon"])


def test_integers_are_refused(target: Target) -> None:
    with pytest.raises(CompileError) as caught:
        BACKEND.build(convolved(), target, Workspace())
    assert caught.value.what == "no dot product for int8 on this target yet"


def test_the_linker_is_that_of_the_triple(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    no_linker(monkeypatch)
    with pytest.raises(CompileError, match="no linker found for aarch64-linux-gnu"):
        BACKEND.build(convolved(groups=8), target, Workspace())


def test_bfloat16_is_refused(target: Target) -> None:
    error = BACKEND.refusal({"bfloat16"}, target)
    assert error
    assert error.why == "cortex-a76 has no instruction for bfloat16"


def test_its_code_does_not_run_here(target: Target) -> None:
    known = host_architecture()
    assert known
    check_host("native", frozenset(), known.kind)
    with pytest.raises(CompileError, match="this machine cannot run it") as caught:
        check_host(target.text, frozenset(), target.kind)
    assert caught.value.why.startswith("it is code for aarch64, and the processor is ")
    assert caught.value.help.endswith(f"or with --target {known.levels[-1]}")

"""Targets: texts, detection, and the refusal of code that this machine cannot run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvc.backends.tvm import BACKEND, build
from lvc.backends.tvm.cpu import host, targets
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.program import Program
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.measure.memory import Memory

ZEN3 = {"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "1"}
ICELAKE = {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "106"}


def test_texts() -> None:
    for text in targets.target_texts():
        target = BACKEND.parse_target(text)
        assert target is not None
        assert target.features <= host.KNOWN
    assert BACKEND.parse_target("z80") is None


@pytest.mark.parametrize(
    ("info", "features", "cpu"),
    [
        (ZEN3, host.CPUS["znver3"].features, "znver3"),
        (ZEN3, host.CPUS["x86-64-v3"].features, "x86-64-v3"),
        (ICELAKE, host.CPUS["icelake-server"].features, "icelake-server"),
        (ICELAKE, host.CPUS["x86-64-v4"].features, "x86-64-v4"),
        ({"vendor_id": "Unknown"}, host.CPUS["x86-64-v2"].features, "x86-64-v2"),
        ({}, frozenset(), ""),
    ],
)
def test_a_name_only_where_all_its_features_are(info: dict[str, str], features: frozenset[str], cpu: str) -> None:
    assert targets._native_cpu(features, info) == cpu


def test_a_machine_behaves_as_a_lesser_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_detected_features", lambda: host.CPUS["znver4"].features)
    monkeypatch.setattr(targets, "cpuinfo", lambda: {**ZEN3, "model": "17"})
    monkeypatch.delenv(host.STAND_IN, raising=False)
    assert BACKEND.parse_target("native").cpu == "znver4"
    monkeypatch.setenv(host.STAND_IN, "x86-64-v3")
    target = BACKEND.parse_target("native")
    assert (target.text, target.cpu, target.features) == ("native", "x86-64-v3", host.CPUS["x86-64-v3"].features)
    with pytest.raises(CompileError, match="cannot run it"):
        host.check_host("znver4", host.CPUS["znver4"].features)
    monkeypatch.setenv(host.STAND_IN, "")
    assert BACKEND.parse_target("native").cpu == "znver4"


@pytest.mark.parametrize(
    ("cpu", "what", "why"),
    [("x86-64-v33", "names no processor: 'x86-64-v33'", ""), ("znver4", "cannot run its code", "the processor lacks")],
)
def test_a_machine_behaves_as_no_greater_one(
    cpu: str, what: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "_detected_features", lambda: host.CPUS["x86-64-v3"].features)
    monkeypatch.setenv(host.STAND_IN, cpu)
    assert main(["compile", "torchvision.models:resnet18", "-o", "never-written.lvc"]) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert what in err
    assert why in err


def test_plans_name_the_kind_of_their_code() -> None:
    target = BACKEND.parse_target("x86-64-v3")
    assert (target.kind, targets.llvm_options(target)["mtriple"]) == ("x86-64", "x86_64-unknown-linux-gnu")
    written = build.plan(Program(), [], target, Memory(0, 0, 0, 0, 0, 0), CpuCodeGenerator.of(target))
    assert written["kind"] == "x86-64"
    assert "host" not in written


def test_a_processor_that_is_not_known_is_told() -> None:
    with pytest.raises(CompileError, match="no processor is called 'znver99'"):
        targets.llvm_options(Target("native", "tvm", "x86-64", "znver99"))


def test_vectors() -> None:
    widths = {text: targets.vector_of(BACKEND.parse_target(text)).lanes for text in host.CPUS}
    assert widths["x86-64-v2"] == 4
    assert widths["znver3"] == 8
    assert widths["znver4"] == 16


def test_code_for_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "host_features", lambda: host.CPUS["x86-64-v3"].features)
    host.check_host("x86-64-v3", host.CPUS["x86-64-v3"].features)
    with pytest.raises(CompileError, match="cannot run it") as caught:
        host.check_host("znver4", host.CPUS["znver4"].features)
    assert "avx512f" in caught.value.why


@pytest.mark.parametrize("cpu", host.CPUS)
def test_linux_lists_what_a_plan_asks_for(cpu: str) -> None:
    target = BACKEND.parse_target(cpu)
    assert target is not None
    flags, architecture = CpuCodeGenerator.of(target).flags, host.CPUS[cpu].architecture
    assert flags["key"] == architecture.flags
    words = flags["words"]
    assert isinstance(words, list)
    assert architecture.features_of({architecture.flags: " ".join(words)}) == target.features


def test_a_target_says_for_how_many_threads_work_is_cut() -> None:
    target = Target.parse("cortex-a76+threads=16")
    assert target.threads == targets.vector_of(target).machine.threads == 16
    assert targets.vector_of(Target.parse("cortex-a76")).machine.threads == 4
    assert Target.parse("aarch64+dotprod+threads=8").features == Target.parse("aarch64+dotprod").features


def test_native_is_what_it_is_for_any_number_of_threads() -> None:
    plain, many = Target.parse("native"), Target.parse("native+threads=32")
    assert (many.cpu, many.features, many.threads) == (plain.cpu, plain.features, 32)
    assert targets.vector_of(many).machine == replace(targets.vector_of(plain).machine, threads=32)


@pytest.mark.parametrize(
    "text", ["native+threads=0", "native+threads=x", "znver4+threads=", "znver4+threads=4+threads=8"]
)
def test_threads_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="threads are one number from 1 to 1024"):
        Target.parse(text)


def test_native_takes_no_instruction_sets() -> None:
    with pytest.raises(UsageError, match=r"the target 'native' takes no '\+avx2'"):
        Target.parse("native+avx2")

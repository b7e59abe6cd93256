"""GPUs as targets: which there are, what can be built, and what is emitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpu_models import build, needs_nvrtc
from sketch import Sketch

from lvc.backends.tvm.gpu import nvrtc, rules
from lvc.backends.tvm.gpu.driver import found_gpu
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS, GPUS
from lvc.backends.tvm.gpu.targets import gpu_of
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.emission import Emission, check_artefact, check_emission, emit
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.operators import ordering
from lvc.compiler.pipeline import catalogue


def test_targets_name_capabilities_and_chips() -> None:
    assert Target.parse("cuda").features == {"sm_75"}
    assert gpu_of(Target.parse("cuda:sm_80")) is CHIPS["a100"]
    assert gpu_of(Target.parse("cuda:orin")).multiprocessors == 16
    with pytest.raises(UsageError, match="no GPU is called 'a1000'") as caught:
        Target.parse("cuda:a1000")
    assert "did you mean 'a100'?" in caught.value.help


def test_descriptions_are_consistent() -> None:
    for gpu in GPUS.values():
        level = gpu.capability
        assert level.block_shared <= level.shared
        assert level.threads % 1024 == 0 or level.threads == 1536
    assert {chip.capability.number for chip in CHIPS.values()} == set(CAPABILITIES)
    assert CHIPS["a100"].peak == pytest.approx(19.5e12, rel=0.01)
    assert CHIPS["h100"].peak == pytest.approx(67e12, rel=0.01)


@needs_nvrtc
def test_what_can_be_built_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--json"]) == 0
    found = {one["target"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["cuda:sm_80"]["builds"]
    is_there = found_gpu() is not None
    assert is_there == (found["native-gpu"]["runs"] == "yes") == (found["cuda"]["runs"] == "yes")
    assert is_there or "this machine has no NVIDIA GPU" in found["native-gpu"]["missing"]["error"]
    assert found["cuda:sm_70"]["builds"] == ("sm_70" in nvrtc.architectures())


def test_without_nvrtc_there_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_folders", lambda: iter(()))
    nvrtc._library.cache_clear()
    nvrtc.architectures.cache_clear()
    target = Target.parse("cuda:sm_80")
    missing = catalogue.BACKENDS.get(target.backend).missing(target)
    nvrtc._library.cache_clear()
    assert missing is not None
    assert missing.what == "code for GPUs needs NVRTC, which is not installed"
    assert missing.help == "pip install lvc[cuda]"


def test_forms_that_there_are_not_for_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="what is built for 'cuda:sm_80' cannot be emitted as 'static'") as caught:
        check_emission(Emission("static", "net"), Target.parse("cuda:sm_80"))
    assert "what drives a GPU is a library" in caught.value.why
    assert "leave --emit out" in caught.value.help
    check_artefact(Target.parse("cuda:sm_80"))


def test_kernels_for_gpus_are_not_tuned() -> None:
    refused = catalogue.BACKENDS.get("tvm").untunable(Target.parse("cuda:sm_80"), away=True)
    assert refused is not None
    assert refused.why == "kernels for GPUs are made in one way, by rules"


def test_targets_of_other_systems_have_no_artefact() -> None:
    with pytest.raises(UsageError, match="cannot be emitted as 'artefact'") as caught:
        check_artefact(Target.parse("cortex-a76-android"))
    assert "it has to be linked there" in caught.value.why
    for text in ("x86-64-v3", "onnx", "reference", "aarch64"):
        check_artefact(Target.parse(text))


def test_what_tensor_cores_lack_is_refused_with_targets_that_have_it() -> None:
    turing, ampere = Target.parse("cuda"), Target.parse("cuda:a100")
    backend = catalogue.BACKENDS.get(turing.backend)
    refused = backend.refusal({"bfloat16"}, turing)
    assert refused is not None
    assert refused.why == "tensor cores of capability 7.5 do not"
    assert "cuda:sm_80" in refused.help
    assert backend.refusal({"float16"}, turing) is None
    assert backend.refusal({"float16", "bfloat16"}, ampere) is None


@needs_nvrtc
def test_what_is_emitted_is_whole(tmp_path: Path) -> None:
    s = Sketch()
    artefact = build(s.model(s.conv(s.input(1, 3, 8, 8), 8, 3)), "cuda:sm_90")
    check_emission(Emission("source", "net"), Target.parse("cuda:sm_90"))
    emit(artefact, tmp_path / "net", Emission("source", "net"))
    plan = json.loads((tmp_path / "net" / "net.launches.json").read_text())
    text = (tmp_path / "net" / "net.cu").read_text()
    assert plan["architecture"] == "sm_90"
    assert plan["steps"]
    for launch in plan["steps"]:
        assert f"LVC_KERNEL({launch['kernel']}, {launch['threads']})" in text
        assert plan["kernels"][launch["kernel"]]["spill_stores"] == 0
        assert all(place["kind"] in ("input", "output", "constant", "workspace") for place in launch["arguments"])
    cubins = list((tmp_path / "net").glob("k_*.sm_90.cubin"))
    assert cubins
    assert all(file.read_bytes()[:4] == b"\x7fELF" for file in cubins)
    assert all(b".target sm_90" in file.read_bytes() for file in (tmp_path / "net").glob("*.ptx"))
    assert nvrtc.compile_cuda(text, "sm_90").usage.keys() == plan["kernels"].keys()


@needs_nvrtc
def test_a_kernel_that_nvrtc_refuses_is_an_error_with_its_words() -> None:
    with pytest.raises(CompileError, match="refuses a kernel for sm_80") as caught:
        nvrtc.compile_cuda('extern "C" __global__ void k() { undefined(); }', "sm_80")
    assert "undefined" in caught.value.why


def test_loops_for_one_thread_of_a_processor_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", ())
    sketch = Sketch()
    order = sketch.call(ordering.argsort, sketch.input(2, 9), True)
    with pytest.raises(CompileError, match="no kernel for GPUs can be made for argsort") as caught:
        build(sketch.model(order))
    assert "elements wait for one another" in caught.value.why

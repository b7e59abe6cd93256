"""`lvc inspect` on models and artefacts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from small_models import build, convolutions

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.cli import main
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.kernels import KernelAccount, KernelsAccount, LaunchAccount
from lvc.compiler.measure.layers import totals
from lvc.compiler.measure.memory import Memory
from lvc.compiler.writing import write_model

MEMORY = Memory(weights=10_000, prepared=1000, workspace=2000, scratch=400, external=100, live=2000)


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    model = convolutions()
    model.labels = ("a", "b")
    model.preprocessing = "layout=rgb,range=1"
    made = build(model)
    return dataclasses.replace(made, metadata={**made.metadata, "memory": MEMORY.to_json()})


def test_artefact_tells_all_without_loading_code(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lvc"
    container.write(dataclasses.replace(artefact, backend="no-such-backend"), path)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    wanted = ("no-such-backend", "weights.bin", "layout=rgb,range=1", "2 classes", "image: f32[1,4,16,16]")
    for text in (*wanted, "1.20 times the 2.00 kB that are alive at once", "13.5 kB on one thread"):
        assert text in out
    assert "conv_transpose2d" in out
    assert f"{totals(layers(convolutions())).layers} layers" in out


def test_json_of_an_artefact(artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.lvc"
    container.write(artefact, path)
    assert main(["inspect", str(path), "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["macs"] == totals(layers(convolutions())).macs
    assert [layer["op"] for layer in found["layers"]] == ["linear", "linear"]
    assert len(found["files"]["weights.bin"]["sha256"]) == 64
    assert found["inputs"] == [{"name": "image", "spec": "f32[1,4,16,16]"}]
    assert found["memory"].items() >= MEMORY.to_json().items()
    assert found["memory"].items() >= {"activations": 2400, "overhead": 1.2, "peak": 13500}.items()


LAUNCH = LaunchAccount(98, 256, 90, 24192, 0, 2, 16, 64, "registers", 13e-6)
ADDING = LaunchAccount(49, 128, 45, 0, 8, 10, 40, 64, "registers", 1e-6)
KERNELS = KernelsAccount(
    "NVIDIA A100",
    4e-6,
    (
        KernelAccount("conv", "Conv2d", 115_605_504, 1_754_368, 11.9e-6, "arithmetic", (LAUNCH, ADDING)),
        KernelAccount("pool", "general schedule", 0, 4_014_080, 2.6e-6, "memory", (ADDING,)),
    ),
)


def test_kernels_of_an_artefact_for_a_gpu(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, stored = tmp_path / "a.lvc", json.loads(json.dumps(KERNELS.to_json()))
    container.write(dataclasses.replace(artefact, metadata={**artefact.metadata, "kernels": stored}), path)
    assert main(["inspect", str(path), "--per-op"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:5] == ["kernel", "kind", "blocks", "threads", "registers"]
    for text in ("98 + 49", "256 + 128", "90 + 45", "24192 + 0", "registers + registers", "116 M", "14.0 µs", "85.0 %"):
        assert text in lines[3]
    assert lines[5].startswith("estimate, not measured: 19.0 µs a run on NVIDIA A100, 4.00 µs of it to launch")
    assert lines[6] == "2 of 2 kernels spill"
    assert main(["inspect", str(path), "--per-op", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"] == stored["kernels"]


def test_what_has_no_account_of_kernels_is_one_error(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.lvc"
    container.write(artefact, path)
    assert main(["inspect", str(path), "--per-op"]) == 2
    assert "the artefact has no account of its kernels" in capsys.readouterr().err
    assert main(["inspect", "torchvision.models:resnet18", "--per-op"]) == 2
    assert "--per-op is for what was built" in capsys.readouterr().err
    assert main(["inspect", "missing.lvc", "--per-op"]) == 2
    assert "cannot read 'missing.lvc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", [[], {"gpu": "x", "launching": -1.0, "kernels": []}, {**KERNELS.to_json(), "kernels": [1]}]
)
def test_a_damaged_account_of_kernels_is_one_error(
    value: object, artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.lvc"
    container.write(dataclasses.replace(artefact, metadata={"kernels": json.loads(json.dumps(value))}), path)
    assert main(["inspect", str(path), "--per-op"]) == 1
    assert "the artefact's account of kernels is damaged" in capsys.readouterr().err


def test_model_and_its_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lvc.compiler.writing import write_model

    path = tmp_path / "model.onnx"
    write_model(convolutions(), path)
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["macs"] == totals(layers(convolutions())).macs
    assert main(["inspect", str(path)]) == 0
    assert "peak memory of intermediate results" in capsys.readouterr().out


@pytest.mark.parametrize("stored", [[{"node": 1}], [3], [{}]])
def test_damaged_layers_are_one_error(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: object
) -> None:
    path = tmp_path / "a.lvc"
    container.write(dataclasses.replace(artefact, metadata={"layers": stored}), path)
    assert main(["inspect", str(path)]) == 1
    assert "list of layers is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {
            "labels": 3,
            "source": 4,
            "report": 5,
            "layers": 6,
            "memory": {"weights": -1},
            "pipeline": ["x"],
            "preprocessing": {},
        },
    ],
)
def test_odd_metadata_is_shown_or_left_out(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: dict[str, object]
) -> None:
    path = tmp_path / "a.lvc"
    container.write(dataclasses.replace(artefact, metadata=metadata), path)
    assert main(["inspect", str(path)]) == 0
    assert "convolutions" in capsys.readouterr().out


def test_groups_of_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(convolutions(), path := tmp_path / "m.onnx")
    assert main(["inspect", str(path), "--groups"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()[2:]
    assert header.split()[:3] == ["group", "units", "channels"]
    assert "has them" in "\n".join(rows)
    assert rows[-1].endswith("units")
    assert main(["inspect", str(path), "--groups", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert len(groups) == len(rows) - 1
    for group in groups:
        assert group["parameters"] > 0
        assert all(set(range(group["units"])) <= set(member["units"]) for member in group["members"])


def test_an_artefact_has_no_groups_of_channels(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.lvc"
    container.write(artefact, path)
    assert main(["inspect", str(path), "--groups"]) == 2
    assert "give the model that it was made from" in capsys.readouterr().err

"""What waits for a GPU is prepared, tested and raced on an emulated one, goes on where it stopped, and is skipped."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import fake_gpu, kernels

from lvc.backends.tvm.gpu.driver import found_gpu
from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.load.request import LoadRequest

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the suite runs against an installed wheel")
if TOOLS.is_dir():
    sys.path.insert(0, str(TOOLS))
    import gpu_suite

    sys.path.remove(str(TOOLS))

NETWORK = """
import torch


def make(**unused):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Path]]:
    """The arguments that say what there is, and the kernels of each artefact."""
    pytest.importorskip("nvidia")
    folder = tmp_path_factory.mktemp("suite")
    (folder / "net.py").write_text(NETWORK)
    made: dict[str, Path] = {}
    write = container.write

    def keep(artefact: Artefact, path: Path) -> None:
        place = folder / path.stem
        place.mkdir()
        made[path.stem] = kernels(artefact, place)
        write(artefact, path)

    with pytest.MonkeyPatch.context() as patch:
        request = LoadRequest(f"{folder / 'net.py'}:make", shapes={"": (1, 3, 8, 8)})
        patch.setattr(gpu_suite, "request_of", lambda *_: request)
        patch.setattr(container, "write", keep)
        given = ["net", "--batch", "1", "--out", str(folder)]
        assert gpu_suite.main(["prepare", *given]) == 0
        assert gpu_suite.main(["prepare", *given]) == 0
    assert sorted(made) == ["net-fp16-1", "net-fp32-1", "net-int8-1"]
    return given, made


def test_without_a_gpu_there_is_one_sentence(
    prepared: tuple[list[str], dict[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    if found_gpu():
        pytest.skip("this machine has an NVIDIA GPU")
    for what in ("test", "bench"):
        assert gpu_suite.main([what, *prepared[0]]) == 0
        assert capsys.readouterr().out == f"skipped: there is no NVIDIA GPU here to {what} on\n"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_artefacts_are_compared_once_and_what_is_wrong_is_told(
    prepared: tuple[list[str], dict[str, Path]], precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, made = prepared
    name = f"net-{precision}-1"
    chosen = [*given, "--precision", precision]
    folder = Path(given[-1]) / "cuda-sm_75"
    with fake_gpu(made[name], name="NVIDIA T4", capability=75) as driver:
        assert gpu_suite.main(["test", *chosen, "--minutes", "-1"]) == 3
        assert f"run this again for the rest, from {name} on" in capsys.readouterr().out
        assert gpu_suite.main(["test", *chosen]) == 0
        assert json.loads((folder / f"{name}.test.json").read_text())["gpu"] == "NVIDIA T4"
        runs = driver.calls("cuLaunchKernel")
        assert runs > 0
        assert gpu_suite.main(["test", *chosen, "--minutes", "-1"]) == 0
        assert driver.calls("cuLaunchKernel") == runs
        with np.load(folder / f"{name}.npz") as arrays:
            changed = {key: array + 1e-2 * (key == "output_0") for key, array in arrays.items()}
        np.savez(folder / f"{name}.npz", **changed)
        (folder / f"{name}.test.json").write_text("{}")
        assert gpu_suite.main(["test", *chosen]) == 1
        assert f"{name}: an output differs by" in capsys.readouterr().out
        gc.collect()
        assert not driver.faults()


def test_races_are_kept_and_become_a_table(
    prepared: tuple[list[str], dict[str, Path]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own, which has the driver by its path; of the peers nothing is there."""
    from fake_cuda import folder

    given, made = prepared
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder()))
    monkeypatch.setattr(gpu_suite, "SECONDS", 0.5)
    monkeypatch.setattr(gpu_suite, "PEERS", {})
    with fake_gpu(made["net-fp32-1"], name="NVIDIA T4", capability=75):
        assert gpu_suite.main(["bench", *given, "--precision", "fp32"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("| model | GPU |")
        assert lines[2].startswith("| net-fp32-1 | NVIDIA T4 | net-fp32-1 | ")
        assert gpu_suite.main(["bench", *given, "--precision", "fp32", "--minutes", "-1"]) == 0

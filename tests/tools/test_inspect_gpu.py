"""tools/inspect_kernels.py for GPUs: estimates in a table, each called one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lvc.backends.tvm.gpu import nvrtc
from lvc.compiler.errors import CompileError

TOOLS = Path(__file__).parents[2] / "tools"
NETWORK = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Softmax(1))
"""


def _lacking() -> str:
    try:
        nvrtc.version()
    except CompileError as error:
        return str(error)
    return ""


pytestmark = [
    pytest.mark.skipif(not TOOLS.is_dir(), reason="the tool is not part of the wheel"),
    pytest.mark.skipif(bool(_lacking()), reason=_lacking() or "nothing is lacking"),
]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("inspect_kernels")


def test_the_estimates_of_a_small_model(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "net.py", tmp_path / "kernels.json"
    source.write_text(NETWORK)
    given = ["--shape", "1x16x56x56", "--target", "cuda:a100", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["inspect_kernels.py", f"{source}:make", *given])
    assert tool.main() == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    rows = [line for line in lines if line.endswith("not measured") and "Conv2d" in line]
    assert lines[1].split()[:6] == ["kernel", "kind", "times", "blocks", "threads", "registers"]
    assert [next(word for word in row.split() if word in ("28.90", "107.50")) for row in rows] == ["28.90", "107.50"]
    assert "\nestimate: " in said
    assert "NVIDIA A100 (40 GB, SXM4) at 1.41 GHz with 1555 GB/s: not measured" in said
    assert f"\n0 kernels of {len(lines) - 6} spill\n" in said
    assert "\n1 convolution above 50 M multiply-adds: " in said
    (account,) = json.loads(out.read_text())
    assert (account["target"], account["measured"]) == ("cuda:a100", None)
    kernels = account["kernels"]
    total = sum(kernel["seconds"] * kernel["times"] for kernel in kernels) + account["estimate"]["launching"]
    assert account["estimate"]["seconds"] == pytest.approx(total)
    assert [kernel["macs"] for kernel in kernels if kernel["kind"] == "Conv2d"] == [28901376, 107495424]
    assert all(launch["occupancy"]["blocks"] > 0 for kernel in kernels for launch in kernel["launches"])


def test_a_model_by_its_name_takes_a_shape(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["inspect_kernels.py", "squeezenet1_1", "--shape", "1x3x64x64"]
    monkeypatch.setattr(sys, "argv", given)
    options = tool.parse()
    options.model = "squeezenet1_1"
    assert tool.named_request("squeezenet1_1", options).load().inputs[0].spec.shape == (1, 3, 64, 64)
    options.shape = []
    assert tool.named_request("squeezenet1_1", options).shapes == {"": (1, 3, 224, 224)}


def test_a_gpu_that_no_code_can_be_made_for_is_an_error(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "net.py"
    source.write_text(NETWORK)
    monkeypatch.setattr(nvrtc, "architectures", lambda: frozenset({"sm_90"}))
    given = ["--shape", "1x16x8x8", "--target", "cuda:t4"]
    monkeypatch.setattr(sys, "argv", ["inspect_kernels.py", f"{source}:make", *given])
    assert tool.main() == 1
    assert "makes no code for sm_75" in capsys.readouterr().err

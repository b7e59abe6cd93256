"""tools/compare_quantisation.py keeps its rows, measures none twice, and says which peer is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.load.torch_importer import from_module


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import compare_quantisation

    return compare_quantisation


@pytest.fixture
def evaluated(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a small classifier the one network; return a list that grows when it is measured."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    model = from_module(module, [torch.zeros(1, 3, 8, 8)], name="small")
    images = np.random.default_rng(0).standard_normal((12, 1, 3, 8, 8), np.float32)
    times: list[int] = []

    def samples() -> object:
        times.append(len(times))
        return tool.Samples([(image, index % 4) for index, image in enumerate(images)])

    request = SimpleNamespace(load=lambda: model)
    monkeypatch.setattr(
        tool, "NETWORKS", {"small": tool.Network(request, lambda: tool.Samples([(images[0], 0)]), samples)}
    )
    return times


def run(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_quantisation.py", *arguments])
    threads = torch.get_num_threads()
    tool.main()
    torch.set_num_threads(threads)


def test_a_row_that_stands_is_not_measured_again(
    tool: ModuleType, evaluated: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    pipeline = "insert-fake-quant,calibrate"
    run(tool, monkeypatch, "--pipelines", pipeline, "--json", str(file))
    kept = file.read_text()
    assert [row["pipeline"] for row in json.loads(kept)] == ["float", pipeline]
    assert 10 < json.loads(kept)[1]["sqnr"] < 80
    run(tool, monkeypatch, "--pipelines", pipeline, "--json", str(file))
    assert (len(evaluated), file.read_text()) == (1, kept)


def test_other_settings_are_measured_beside_what_stands(
    tool: ModuleType, evaluated: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    run(tool, monkeypatch, "--pipelines", "", "--json", str(file))
    run(tool, monkeypatch, "--pipelines", "", "--limit", "5", "--json", str(file))
    assert [row["limit"] for row in json.loads(file.read_text())] == [None, 5]
    assert len(evaluated) == 2


def test_a_file_of_something_else_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text in ("[", '{"a": 1}', '[{"network": "resnet20", "notes": []}]'):
        file.write_text(text)
        with pytest.raises(UsageError, match="not a file of rows"):
            tool.Rows(file)


def test_a_missing_peer_is_a_sentence(
    tool: ModuleType,
    evaluated: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(tool.PEERS, "nncf", replace(tool.PEERS["nncf"], packages=("no-such-package",)))
    run(tool, monkeypatch, "--pipelines", "", "--peers", "nncf")
    printed = capsys.readouterr()
    assert "nncf is skipped: no-such-package is not installed" in printed.err
    assert "nncf" not in printed.out
    assert "float" in printed.out


def test_an_unknown_peer_is_refused(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, "--peers", "nnfc")
    assert "no 'nnfc': choose from nncf" in capsys.readouterr().err

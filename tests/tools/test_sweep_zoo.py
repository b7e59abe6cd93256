"""tools/sweep_zoo.py: its verdicts, and that it goes on where it stopped."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the sweep is not part of the wheel")


@pytest.fixture
def sweep_zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("sweep_zoo")


RIGHT = np.linspace(-1, 1, 100, dtype=np.float32)
OFF, BELOW = RIGHT * np.float32(1.001), RIGHT * np.float32(0.999)


@pytest.mark.parametrize(
    ("found", "wanted", "exact", "verdict"),
    [
        ([RIGHT], [RIGHT], None, "right"),
        ([OFF], [RIGHT], [RIGHT], "WRONG"),
        ([OFF], [RIGHT], None, "WRONG"),
        ([OFF], [BELOW], [RIGHT], "rounding"),
        ([RIGHT, OFF], [RIGHT, BELOW], [RIGHT, OFF], "rounding"),
        ([RIGHT, OFF], [RIGHT, BELOW], [RIGHT, BELOW], "WRONG"),
        ([RIGHT], [RIGHT, RIGHT], None, "WRONG"),
        ([np.ones(8)], [np.ones(8)], None, "silent"),
        ([RIGHT[:50]], [RIGHT], [RIGHT], "WRONG"),
    ],
)
def test_verdicts(sweep_zoo: Any, found: Any, wanted: Any, exact: Any, verdict: str) -> None:
    assert sweep_zoo.judge(found, wanted, exact)["verdict"] == verdict


def test_it_goes_on_where_it_stopped(sweep_zoo: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Worker:
        asked: list[str] = []

        def __init__(self, *_: str) -> None:
            pass

        def measure(self, name: str, timeout: float) -> dict[str, Any] | None:
            self.asked.append(name)
            return None if name.endswith("Unet") else {"verdict": "right", "difference": 1e-6, "parameters": 1000}

        def end(self) -> None:
            pass

    monkeypatch.setattr(sweep_zoo, "Worker", Worker)
    options = argparse.Namespace(
        pipeline="O2", target="native", only="^smp:(FPN|PAN|Unet)$", again="failed", results=tmp_path / "r", timeout=1
    )
    rows = sweep_zoo.sweep(options)
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {"smp:FPN": "right", "smp:PAN": "right", "smp:Unet": "failed"}
    assert [json.loads(line)["model"] for line in options.results.read_text().splitlines()] == list(rows)
    Worker.asked.clear()
    again = sweep_zoo.sweep(options)
    assert Worker.asked == ["smp:Unet"]
    assert list(again) == list(rows)
    assert sweep_zoo.table(again).count("smp:") == len(rows)


@pytest.mark.parametrize(("plain", "verdict"), [(RIGHT, "rounding"), (OFF, "WRONG")])
def test_coarse_rounding_is_shown_by_leaving_it_out(sweep_zoo: Any, plain: np.ndarray, verdict: str) -> None:
    near, exact = RIGHT * np.float32(1.0002), [RIGHT]
    first = sweep_zoo.judge([OFF], [near], exact)
    assert first["verdict"] == "WRONG"
    assert sweep_zoo._without_winograd(first, [near], exact, lambda: [plain])["verdict"] == verdict


def test_a_large_difference_is_wrong_whatever_rounds(sweep_zoo: Any) -> None:
    first = sweep_zoo.judge([2 * RIGHT], [OFF], [RIGHT])
    assert sweep_zoo._without_winograd(first, [OFF], [RIGHT], lambda: [RIGHT])["verdict"] == "WRONG"

"""What is shipped of a tuning's result: what is surely faster; what other processors have measured stays."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lvc
from lvc.backends.tvm.tuning import shipped
from lvc.backends.tvm.tuning.shipped import Shipped
from lvc.compiler.tuning.database import Place

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "compiler"))
from tuned_sketch import RULE, SketchKernel, choice, three, tunable  # noqa: E402

pytestmark = pytest.mark.skipif(not (ROOT / "tools").is_dir(), reason="the tools are not part of the wheel")
OTHER = Place("far", "another processor", lvc.__version__)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("ship_records")


def ship(tool: Any, folder: Path, kernels: list[SketchKernel], monkeypatch: pytest.MonkeyPatch) -> dict[Place, Shipped]:
    """Ship records of a model beside one of another processor and an older one of this; return what the file has."""
    output = folder / "records.json"
    if not output.exists():
        before = {OTHER: Shipped("{}", 0.5, "a layer", RULE), place("b"): Shipped(choice(3), 0.9, "older", RULE)}
        output.write_text(shipped.to_json(lvc.__version__, before))
    monkeypatch.setattr(shipped, "FILE", output)
    monkeypatch.setattr(tool, "tunable", lambda *_: tunable(kernels))
    monkeypatch.setattr(sys, "argv", ["ship", "net@64", "--db", str(folder / "t.db"), "--budget", "20s"])
    shipped._read.cache_clear()
    assert tool.main() == 0
    shipped._read.cache_clear()
    return dict(shipped.shipped_records())


def place(key: str) -> Place:
    return Place(key, "a processor", lvc.__version__)


def test_what_is_surely_faster_is_shipped(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ship(tool, tmp_path, three(), monkeypatch)
    assert set(found) == {OTHER, place("a"), place("b")}
    assert (found[place("a")].choice, found[place("a")].rule) == (choice(7), RULE)
    assert found[place("b")].choice == choice(12)
    again = three()
    assert ship(tool, tmp_path, again, monkeypatch) == found
    assert not any(kernel.raced for kernel in again), "nothing is tried twice"


def test_a_small_gain_is_not(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [replace(kernel, off=1.015) for kernel in three()]
    assert set(ship(tool, tmp_path, kernels, monkeypatch)) == {OTHER}, "and what did not win again is gone"

"""How long kernels would take on more cores: by hand for some, and by the loops that stand in real ones."""

from __future__ import annotations

import importlib
import json
import sys
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "tools").is_dir(), reason="the tools are not part of the wheel")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "backends" / "tvm"))
    names = {"main": "simulate_cores", "cores": "inspection.cores", "sketch": "sketch"}
    return SimpleNamespace(**{key: importlib.import_module(name) for key, name in names.items()})


def test_cores_wait_for_the_one_with_most_tasks(tool: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool.cores, "START", 0.0)
    kernel = tool.cores.Timed("a", 12.0, (tool.cores.TaskLoop(12, 1.0),))
    assert [kernel.on(cores) for cores in (1, 2, 5, 8, 12, 64)] == pytest.approx([12, 6, 3, 2, 1, 1])
    assert kernel.idle(8) == pytest.approx(4)
    serial = tool.cores.Timed("b", 3.0, ())
    assert (serial.on(64), serial.idle(64)) == (3.0, 189.0)
    half = tool.cores.Timed("c", 8.0, (tool.cores.TaskLoop(4, 0.25), tool.cores.TaskLoop(2, 0.5)))
    assert half.on(4) == pytest.approx(2 + 0.5 + 2)
    forecast = tool.cores.Forecast.of([kernel, serial], 12)
    assert (forecast.seconds, forecast.gain, forecast.busy) == pytest.approx((4, 15 / 4, 15 / 48))


def test_a_loop_costs_its_start_where_it_is_shared(tool: SimpleNamespace) -> None:
    kernel = tool.cores.Timed("a", 1.0, (tool.cores.TaskLoop(1, 0.5), tool.cores.TaskLoop(2, 0.5)))
    assert kernel.on(1) == 1.0
    assert kernel.on(2) == 0.75 + tool.cores.START
    again = tool.cores.Timed("b", 1.0, (tool.cores.TaskLoop(2, 1.0, times=8),))
    assert again.on(2) == 0.5 + 8 * tool.cores.START


def steps(tool: SimpleNamespace, build: Any) -> tuple[list[Any], Any]:
    from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
    from lvc.backends.tvm.lower import lower
    from lvc.compiler.backend import Target

    generator = CpuCodeGenerator.of(Target.parse("x86-64-v3"))
    sketch = tool.sketch.Sketch()
    return lower(sketch.model(build(sketch)), generator).steps, generator.vector


def test_the_tasks_of_a_convolution_are_those_of_its_knobs(tool: SimpleNamespace) -> None:
    found, vector = steps(tool, lambda sketch: sketch.conv(sketch.input(2, 64, 56, 56), 64, 3))
    (step,) = [step for step in found if "conv2d" in str(step.schedule)]
    (loop,) = tool.cores.loops_of(step, vector)
    knobs: Any = step.schedule.knobs
    assert loop.tasks == prod((2, knobs.row_parts, knobs.channel_parts)) > 2
    assert loop.share == 1.0


def test_minimal_filtering_transforms_and_then_multiplies(tool: SimpleNamespace) -> None:
    def build(sketch: Any) -> Any:
        from lvc.compiler.ir.graph import WINOGRAD

        layer = sketch.conv(sketch.input(3, 256, 14, 14), 256, 3)
        layer.meta[WINOGRAD] = 4
        return layer

    found, vector = steps(tool, build)
    (step,) = [step for step in found if "winograd" in str(step.schedule)]
    transform, multiply = tool.cores.loops_of(step, vector)
    knobs: Any = step.schedule.knobs
    assert knobs.together
    assert (transform.tasks, multiply.tasks) == (256 // vector.lanes, 256 // vector.lanes // knobs.chunk)
    assert transform.share + multiply.share == pytest.approx(1)
    assert transform.times == multiply.times == 3
    assert multiply.share > 5 * transform.share


def test_the_command(
    tool: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = [tool.cores.Timed("a", 0.5, (tool.cores.TaskLoop(8, 1.0),)), tool.cores.Timed("b", 0.5, ())]
    monkeypatch.setattr(tool.main, "timed", lambda *_: kernels)
    monkeypatch.setattr(sys, "argv", ["simulate", "net@64", "--cores", "1,8", "--json", str(tmp_path / "c.json")])
    assert tool.main.main() == 0
    assert "none" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "c.json").read_text())
    assert [one["gain"] for one in found["cores"]] == pytest.approx([1.0, 1 / 0.5625], rel=1e-4)

"""A pipeline runs on a copy, its observers see each pass, and a pass that breaks its promise is caught."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from lvc.compiler.errors import CheckError, CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, store
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.observers import Drift, Dump, StopAfter, Timer, Verifier
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.pipeline import Observer, Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.report import reports_of

TEXT = """model small(x: f32[2,3])
  @w : f32[3]
  %y = mul(%x, @w) : f32[2,3]
  %z = relu(%y) : f32[2,3]
  return out=%z
"""


@dataclass(frozen=True, kw_only=True)
class Break(Pass):
    """Break the model in one of several ways."""

    name: ClassVar[str] = "break"
    effect: ClassVar[Effect] = Effect.ROUNDING

    how: str = option("", "which way")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        graph = model.module.graph
        (relu,) = calls(graph, aten.relu.default)
        if self.how == "weights":
            store(model.module, "w", model.module.w.detach() * 1.01)
        elif self.how == "operator":
            relu.target = torch.ops.aten.relu_.default
        elif self.how == "names":
            model.output_names = ("other",)
        elif self.how == "time":
            time.sleep(0.02)
        elif self.how == "refuse":
            raise CompileError("cannot do it", where="some node", why="it is hard", help="do not ask")
        return Outcome(changed=["z"])


def test_the_model_given_is_left_alone() -> None:
    model = parse_model(TEXT)
    weight = model.module.w.detach().clone()
    changed, steps = Pipeline((Break(how="weights"),)).run(model)
    assert model.to_text() == TEXT
    assert torch.equal(model.module.w, weight)
    assert not torch.equal(changed.module.w, weight)
    assert steps[0].outcome.changed == ["z"]


def test_drift_is_measured_and_bounded() -> None:
    _, (step,) = Pipeline((Break(),)).run(parse_model(TEXT), observers=[Drift()])
    assert step.measured["drift"] == 0
    with pytest.raises(CheckError, match=r"break moved the outputs by 1\.00e-02 relative") as caught:
        Pipeline((Break(how="weights"),)).run(parse_model(TEXT), observers=[Drift()])
    assert caught.value.exit_code == 3
    assert "pass 1 of 1, break" in caught.value.where


def test_the_verifier_names_the_pass_that_broke_the_graph() -> None:
    pipeline = Pipeline.parse("eliminate-dead") + Pipeline((Break(how="operator"),))
    with pytest.raises(CompileError, match="the graph breaks a rule at 'z'") as caught:
        pipeline.run(parse_model(TEXT), observers=[Verifier()])
    assert caught.value.where == "z  (pass 2 of 2, break)"


def test_the_verifier_holds_the_signature() -> None:
    with pytest.raises(CheckError, match="break changed the model's signature"):
        Pipeline((Break(how="names"),)).run(parse_model(TEXT), observers=[Verifier()])


def test_an_error_of_a_pass_says_where_it_ran() -> None:
    with pytest.raises(CompileError) as caught:
        Pipeline((Break(how="refuse"),)).run(parse_model(TEXT))
    assert str(caught.value).splitlines() == [
        "cannot do it",
        "  at    some node  (pass 1 of 1, break)",
        "  why   it is hard",
        "  help  do not ask",
    ]


def test_the_timer_times_the_pass() -> None:
    _, (step,) = Pipeline((Break(how="time"),)).run(parse_model(TEXT), observers=[Timer()])
    assert step.measured["seconds"] >= 0.02


def test_dumps_are_texts_that_can_be_read(tmp_path: Path) -> None:
    Pipeline.parse("eliminate-identities,eliminate-dead").run(parse_model(TEXT), observers=[Dump(tmp_path / "new")])
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in files] == ["00-input.txt", "01-eliminate-identities.txt", "02-eliminate-dead.txt"]
    assert all(parse_model(file.read_text()).to_text() == TEXT for file in files)


def test_a_run_stops_early() -> None:
    model, steps = Pipeline((Break(), Break(how="weights"))).run(parse_model(TEXT), observers=[StopAfter(1)])
    assert [step.number for step in steps] == [1]
    assert torch.equal(model.module.w, parse_model(TEXT).module.w)


def test_data_that_is_missing_is_told_before_the_run() -> None:
    pipeline = Pipeline.parse("O1,calibrate{data=photos},round-weights{data=photos}")
    with pytest.raises(UsageError, match="no data set named 'photos'") as caught:
        pipeline.check_data({"calib": "place"})
    assert caught.value.where == "calibrate{data=photos}"
    assert "--data photos=PATH" in caught.value.help
    pipeline.check_data({"photos": "place"})
    pipeline.check_data((), passes=len(pipeline) - 2)


def test_a_completion_is_part_of_the_run(tmp_path: Path) -> None:
    asked: list[Model] = []

    def completion(model: Model) -> str:
        asked.append(model)
        return "eliminate-identities,eliminate-dead"

    pipeline, model = Pipeline.parse("eliminate-dead"), parse_model(TEXT)
    rewritten, steps = pipeline.run(model, observers=[Dump(tmp_path)], completion=completion)
    assert [str(step) for step in steps[1:]] == ["pass 2 of 3, eliminate-identities", "pass 3 of 3, eliminate-dead"]
    assert asked == [rewritten]
    assert rewritten is not model
    assert [file.name[:2] for file in sorted(tmp_path.iterdir())] == ["00", "01", "02", "03"]

    _, steps = pipeline.run(model, observers=[StopAfter(0)], completion=completion)
    assert (steps, len(asked)) == ([], 1)


def test_an_empty_pipeline_changes_nothing() -> None:
    model, steps = Pipeline.parse("O0").run(parse_model(TEXT), observers=[Verifier(), Drift()])
    assert (model.to_text(), steps) == (TEXT, [])


@dataclass(frozen=True, kw_only=True)
class Around(Pass):
    """Scale the weights, run other passes, twice each."""

    name: ClassVar[str] = "around"
    effect: ClassVar[Effect] = Effect.LOSSY

    inner: tuple[Pass, ...] = ()
    factor: float = 2.0

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        for _ in range(2):
            store(model.module, "w", model.module.w.detach() * self.factor)
            Pipeline(self.inner).run_inside(model, workspace)
        return Outcome(changed=["y"])


def watched(*passes: Pass, observers: list[Observer]) -> tuple[Model, list[Step]]:
    return Pipeline(passes).run(parse_model(TEXT), observers=[Timer(), Verifier(), Drift(), *observers])


def test_passes_that_a_pass_runs_are_seen_by_the_same_observers(tmp_path: Path) -> None:
    around = Around(inner=(Break(how="time"), Around(inner=(Break(),), factor=3.0)))
    _, (first, outer, last) = watched(Break(), around, Break(), observers=[Dump(tmp_path), StopAfter(3)])
    assert [step.place for step in outer.inner] == ["2.1", "2.2", "2.3", "2.4"]
    assert [step.place for step in outer.inner[1].inner] == ["2.2.1", "2.2.2"]
    assert str(outer.inner[1].inner[0]) == "pass 2.2.1, around > around > break"
    seen = [first, outer, *outer.inner, *outer.inner[1].inner, last]
    assert all({"seconds", "drift"} <= step.measured.keys() for step in seen)
    assert outer.measured["seconds"] >= outer.inner[0].measured["seconds"] + outer.inner[2].measured["seconds"] >= 0.04
    assert [step.measured["drift"] for step in (first, *outer.inner[::2], last)] == [0, 0, 0, 0]
    assert outer.inner[1].measured["drift"] == pytest.approx(8)  # 9 times as large, by itself
    assert outer.measured["drift"] == pytest.approx(2 * 9 * 2 * 9 - 1)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"02-around.txt", "02.1-break.txt", "02.2.1-break.txt", "02.4-around.txt", "03-break.txt"} <= names


def test_passes_that_a_pass_runs_keep_their_promises() -> None:
    with pytest.raises(CheckError, match=r"break moved the outputs by 1\.00e-02") as moved:
        watched(Around(inner=(Break(how="weights"),)), observers=[])
    assert moved.value.where == "pass 1.1, around > break"
    with pytest.raises(CheckError, match="break changed the model's signature"):
        watched(Around(inner=(Break(how="names"),)), observers=[])
    with pytest.raises(CompileError, match="cannot do it") as caught:
        watched(Around(inner=(Break(how="refuse"),)), observers=[])
    assert caught.value.where == "some node  (pass 1.1, around > break)"


def test_what_a_pass_runs_leaves_models_alone_that_share_tensors() -> None:
    model = parse_model(TEXT)
    twin, weight = model.copy(share_tensors=True), model.module.w.detach().clone()

    class Train(Break):
        def apply(self, model: Model, workspace: Workspace) -> Outcome:
            with torch.no_grad():
                model.module.w.mul_(2)
            return Outcome(changed=["y"])

    Pipeline((Train(),)).run_inside(model, Workspace())
    assert torch.equal(twin.module.w, weight)
    assert torch.equal(model.module.w, weight * 2)


def test_passes_that_a_pass_runs_stand_in_the_report() -> None:
    _, steps = watched(Around(inner=(Break(),)), Break(), observers=[])
    reports = reports_of(steps)
    assert [(item.number, item.full_text) for item in reports] == [
        ("1", "around{inner=break}"),
        ("1.1", "around > break"),
        ("1.2", "around > break"),
        ("2", "break"),
    ]
    assert [item.within for item in reports] == [(), ("around",), ("around",), ()]


def test_an_observer_may_end_what_a_pass_runs() -> None:
    class NotInside(Observer):
        def before(self, step: Step, model: Model) -> bool:
            return step.outer is None

    _, steps = watched(Around(inner=(Break(),)), Break(), observers=[NotInside()])
    assert [len(step.inner) for step in steps] == [0, 0]
    assert [step.measured["drift"] for step in steps] == [pytest.approx(3), 0]

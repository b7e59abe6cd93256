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
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

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

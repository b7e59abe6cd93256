"""Golden cases: a pipeline, a graph, and what the pipeline makes of it and says about it. A case is a file.

``pytest --update-golden`` rewrites everything below the line ``[after]``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_data import of_integers, with_labels

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.pipeline import Pipeline, Step

CASES = sorted((Path(__file__).parent / "golden").glob("*.txt"))


def describe(steps: list[Step]) -> str:
    lines = []
    for step in steps:
        done = {"changed": step.outcome.changed, "took out": step.outcome.removed}
        told = "; ".join(f"{what} {', '.join(names)}" for what, names in done.items() if names)
        lines.append(f"# {step.item}: {told or 'changed nothing'}")
        lines.extend(f"#   {skip}" for skip in step.outcome.skipped)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_golden(case: Path, request: pytest.FixtureRequest) -> None:
    text = case.read_text()
    head, _, wanted = text.partition("[after]\n")
    first, _, before = head.partition("\n")
    pipeline = Pipeline.parse(first.removeprefix("pipeline: "))
    loaded = parse_model(before)
    loaded.preprocessing = "mean=0.5,std=0.25"
    workspace = with_labels(of_integers(loaded))
    model, steps = pipeline.run(loaded, workspace, [Verifier(), Drift()])
    found = model.to_text() + describe(steps)
    if request.config.getoption("--update-golden"):
        case.write_text(f"{head}[after]\n{found}")
    else:
        assert found == wanted

    settled = [step for step in steps if step.item.idempotent]
    if settled:
        _, again = pipeline.run(model, workspace)
        settled = [step for step in again if step.item.idempotent]
    assert {str(step): step.outcome.places for step in settled} == {str(step): 0 for step in settled}
    assert parse_model(model.to_text()).to_text() == model.to_text()


def test_every_pass_has_a_case() -> None:
    shown = {step.name for case in CASES for step in Pipeline.parse(case.read_text().splitlines()[0][10:])}
    assert set(catalogue.PASSES.names()) - shown == set()

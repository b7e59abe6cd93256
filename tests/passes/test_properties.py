"""Whatever the model and whatever the order of passes: signature and results stay, and a second run changes nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_models import models

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.groups import groups
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import from_files, to_files
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Pipeline

APART = ("fuse-operators", "prune-sensitivity")  # the one ends a pipeline, the other needs data
NAMES = [
    name
    for name in catalogue.PASSES.names()
    if name not in APART
    and (kind := catalogue.PASSES.find(name))
    and kind.effect is not Effect.LOSSY
    and not kind.changes_signature
]
FEW = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(models(), st.lists(st.sampled_from(NAMES), max_size=6))
def test_any_passes_keep_signature_and_results(model: Model, names: list[str]) -> None:
    pipeline = Pipeline.parse(",".join([*names, "fuse-operators"]))
    changed, _ = pipeline.run(model, observers=[Verifier(), Drift()])
    assert (changed.inputs, changed.outputs) == (model.inputs, model.outputs)
    assert all(len(group.members) > 1 for group in groups(changed.module.graph))


@FEW
@given(models(), st.sampled_from([*NAMES, "fuse-operators"]))
def test_each_pass_is_idempotent(model: Model, name: str) -> None:
    once, _ = Pipeline.parse(name).run(model)
    twice, (step,) = Pipeline.parse(name).run(once)
    assert step.outcome.places == 0
    assert twice.to_text() == once.to_text()


@FEW
@given(models())
def test_a_preset_reaches_a_fixed_point(model: Model) -> None:
    once, _ = Pipeline.parse("O2").run(model, observers=[Verifier(), Drift()])
    _, steps = Pipeline.parse("O2").run(once)
    assert {str(step): step.outcome.places for step in steps if step.outcome.places} == {}


@FEW
@given(models())
def test_a_model_is_read_back_as_it_was_written(model: Model) -> None:
    fused, _ = Pipeline.parse("fuse-operators").run(model)
    read = from_files(to_files(fused))
    assert read.to_text() == fused.to_text()
    assert to_files(read) == to_files(fused)
    assert parse_model(fused.to_text()).to_text() == fused.to_text()

"""Passes of another installed package are found through its entry points, and a bad package is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline import catalogue, registry
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.registry import Registry
from lvc.passes.pruning.criterion import CRITERIA
from lvc.passes.quantisation.range_estimator import RANGE_ESTIMATORS
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS

SOURCE = '''
from dataclasses import dataclass

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, replace
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option


@dataclass(frozen=True, kw_only=True)
class DropSecondRelu(Pass):
    """Take out a relu of a relu."""

    name = "drop-second-relu"
    effect = Effect.EXACT
    most: int = option(9, "how many to take out")

    def apply(self, model, workspace):
        outcome = Outcome()
        for node in calls(model.module.graph, aten.relu.default):
            if node.args[0].target is aten.relu.default and len(outcome.changed) < self.most:
                outcome.change(node)
                replace(node, node.args[0])
        return outcome


THREE = 3
'''
KINDS: dict[str, Registry[Any]] = {
    "passes": catalogue.PASSES,
    "backends": catalogue.BACKENDS,
    "analyses": catalogue.ANALYSES,
    "criteria": CRITERIA,
    "range_estimators": RANGE_ESTIMATORS,
    "weight_formats": WEIGHT_FORMATS,
}
BROKEN = "wrong = relu_plugin:THREE\nmissing = relu_plugin:Missing\nabsent = no_such_module:THING"
ENTRY_POINTS = "\n".join(f"[lvc.{group}]\n{BROKEN}\n" for group in KINDS).replace(
    "[lvc.passes]", "[lvc.passes]\ndrop-second-relu = relu_plugin:DropSecondRelu"
)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "relu_plugin.py").write_text(SOURCE)
    info = tmp_path / "relu_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: relu-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.entry_points.cache_clear()
    yield
    registry.entry_points.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_a_pass_of_another_package() -> None:
    assert "drop-second-relu" in catalogue.PASSES.names()
    pipeline = Pipeline.parse("drop-second-relu{most=1},eliminate-dead")
    assert str(pipeline) == "drop-second-relu{most=1},eliminate-dead"
    model = parse_model("""
        model small(x: f32[2])
          %a = relu(%x)
          %b = relu(%a)
          %c = relu(%b)
          return out=%c
    """)
    changed, steps = pipeline.run(model, observers=[Verifier(), Drift()])
    assert steps[0].outcome.removed == ["b"]
    assert changed.to_text().count("relu(") == 2


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("group", KINDS)
def test_what_is_wrong_with_a_package_is_said_of_every_kind_alike(group: str) -> None:
    kind = KINDS[group]
    assert {"wrong", "missing", "absent"} < set(kind.names())
    with pytest.raises(CompileError, match=f"the plug-in 'wrong' is no {kind.noun}") as caught:
        kind.get("wrong")
    assert caught.value.where == "relu_plugin:THREE"
    assert caught.value.help.startswith("its entry point must name a")
    for name, place in (("missing", "relu_plugin:Missing"), ("absent", "no_such_module:THING")):
        with pytest.raises(CompileError, match=f"the plug-in '{name}' cannot be imported") as caught:
            kind.get(name)
        assert caught.value.where == place
    with pytest.raises(UsageError, match=f"there is no {kind.noun} 'mising'") as unknown:
        kind.get("mising")
    assert "did you mean 'missing'" in unknown.value.help


@pytest.mark.parametrize("kind", [kind for group, kind in KINDS.items() if group != "analyses"], ids=lambda k: k.noun)
def test_every_thing_of_ours_is_found_by_its_name(kind: Registry[Any]) -> None:
    assert kind.names()
    assert {name: kind.get(name).name for name in kind.names()} == {name: name for name in kind.names()}


@pytest.mark.usefixtures("plugin")
def test_a_pipeline_names_a_broken_package() -> None:
    with pytest.raises(CompileError, match="the plug-in 'missing' cannot be imported"):
        Pipeline.parse("missing")


def test_without_the_package_the_pass_is_unknown() -> None:
    with pytest.raises(UsageError, match="there is no pass 'drop-second-relu'"):
        Pipeline.parse("drop-second-relu")

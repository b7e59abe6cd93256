"""Passes of another installed package are found through its entry points, and a bad package is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.pipeline import Pipeline

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


NOT_A_PASS = 3
'''
ENTRY_POINTS = """[lvc.passes]
drop-second-relu = relu_plugin:DropSecondRelu
not-a-pass = relu_plugin:NOT_A_PASS
missing = relu_plugin:Missing

[lvc.backends]
broken = no_such_module:BACKEND
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "relu_plugin.py").write_text(SOURCE)
    info = tmp_path / "relu_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: relu-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    catalogue.plugins.cache_clear()
    yield
    catalogue.plugins.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_a_pass_of_another_package() -> None:
    assert "drop-second-relu" in catalogue.pass_names()
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
def test_what_is_wrong_with_a_package_is_said() -> None:
    with pytest.raises(CompileError, match="the plug-in 'not-a-pass' is not a pass"):
        Pipeline.parse("not-a-pass")
    with pytest.raises(CompileError, match="the plug-in 'missing' cannot be imported") as caught:
        Pipeline.parse("missing")
    assert caught.value.where == "relu_plugin:Missing"
    with pytest.raises(CompileError, match="the plug-in 'broken' cannot be imported"):
        catalogue.find_backend("broken")


def test_without_the_package_the_pass_is_unknown() -> None:
    with pytest.raises(UsageError, match="there is no pass 'drop-second-relu'"):
        Pipeline.parse("drop-second-relu")

"""Constants that are made when a model is loaded: Winograd's weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sketch import Sketch, aten, compare, numbers

from lvc.backends.tvm import BACKEND
from lvc.compiler.artefact import Artefact
from lvc.compiler.ir.graph import WINOGRAD, calls
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace

SHAPE = (1, 64, 28, 28)


def network(tile: int = 4) -> Model:
    """Two convolutions with one weight and a third with a residual, all marked."""
    torch.manual_seed(2)
    sketch = Sketch()
    data = sketch.input(*SHAPE)
    weight = sketch.stored(torch.randn(64, 64, 3, 3) / 24)
    first = sketch.call(aten.conv2d.default, data, weight, None, [1, 1], [1, 1])
    second = sketch.call(aten.conv2d.default, first, weight, None, [1, 1], [1, 1])
    third = sketch.conv(second, 64, 3, group="third")
    model = sketch.model(sketch.call(aten.add.Tensor, third, data, group="third"))
    for node in calls(model.module.graph, aten.conv2d.default):
        node.meta[WINOGRAD] = tile
    return model


def build(model: Model, text: str = "native") -> Artefact:
    target = BACKEND.parse_target(text)
    assert target is not None
    return BACKEND.build(model, target, Workspace(threads=2))


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("threads", [1, 2])
def test_prepared_weights_give_the_model(tile: int, threads: int) -> None:
    model, data = network(tile), numbers(*SHAPE)
    executable = BACKEND.load(build(model), threads)
    assert len(executable.plan.setup) == 2
    for _ in range(2):
        compare(executable(data), model(data), 1e-4)


def test_equal_weights_are_prepared_once_and_not_stored() -> None:
    plain, artefact = build(network(0)), build(network())
    plan = json.loads(artefact.files["plan.json"])
    assert len(artefact.files["weights.bin"]) == len(plain.files["weights.bin"]) == plan["constant_bytes"]
    assert plan["prepared_bytes"] == 2 * 36 * 64 * 64 * 4
    made = [step["arguments"][-1]["position"] for step in plan["setup"]]
    read = [argument["position"] for step in plan["steps"] for argument in step["arguments"]]
    assert len(set(made)) == 2
    assert all(position >= plan["constant_bytes"] and position in read for position in made)


def test_a_program_without_setup_has_nothing_prepared() -> None:
    plan = json.loads(build(network(0)).files["plan.json"])
    assert plan["setup"] == []
    assert plan["prepared_bytes"] == 0


def test_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = build(network())
    monkeypatch.setenv("LVC_CACHE", str(tmp_path))
    assert build(network()).files == first.files


def test_steps_are_timed_with_prepared_weights() -> None:
    model, data = network(), numbers(*SHAPE)
    executable = BACKEND.load(build(model), 1)
    wanted = executable(data)
    assert len(executable.time_steps([data], 1)) == len(executable.plan.steps)
    np.testing.assert_array_equal(executable(data)[0], wanted[0])


@pytest.mark.parametrize("text", ["x86-64-v2", "x86-64-v4"])
def test_other_vector_widths_build(text: str) -> None:
    assert json.loads(build(network(), text).files["plan.json"])["setup"]

"""Bits for each layer under a budget: it is kept, costs are those of a layer alone, and both forms come out."""

from __future__ import annotations

import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import arguments, calls, origin
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.running.images import stream
from lvc.passes.quantisation.divergence import divergence

aten = torch.ops.aten


@pytest.fixture(scope="module")
def net() -> Model:
    """A network whose second layer is large and whose last but one matters little."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(1)
    )
    return from_module(nn.Sequential(layers, nn.Flatten(), nn.Linear(8, 5)), torch.zeros(1, 3, 10, 10))


def made(net: Model, options: str, before: str = "") -> tuple[Model, Outcome]:
    pipeline = Pipeline.parse(f"{before}mixed-precision{{{options}}}")
    model, steps = pipeline.run(net, normal(net), [Verifier()])
    return model, steps[-1].outcome


@pytest.mark.parametrize("share", [0.2, 0.3, 0.6, 0.9])
def test_the_bytes_are_kept(share: float, net: Model) -> None:
    model, outcome = made(net, f"bytes={share}")
    assert model.bytes <= share * net.bytes
    assert f"({model.bytes / net.bytes:.3f}x)" in outcome.notes[0]


def test_a_cost_is_what_the_layer_alone_does(net: Model) -> None:
    _, outcome = made(net, "bytes=0.2")
    (table,) = outcome.tables
    assert table.headers == ("layer", "weights", "divergence at 8 bits", "divergence at 4 bits", "chosen")
    assert [row[0] for row in table.rows] == ["0.0", "0.2", "0.4", "2"]
    alone, _ = Pipeline.parse('quantise-weights{bits=4 only="conv2d_1"}').run(net)
    batches = [image for batch in stream(net, normal(net), "calib", 16, "") for image in torch.split(batch, 1)]
    with torch.inference_mode():
        errors = [divergence(net.module(batch), alone.module(batch)) for batch in batches]
    assert table.rows[1][3] == pytest.approx(sum(errors) / len(errors), rel=0.01)
    assert all(row[2] < row[3] for row in table.rows)


def test_what_was_chosen_is_what_is_stored(net: Model) -> None:
    model, outcome = made(net, "bytes=0.25")
    chosen = {row[0]: row[4] for row in outcome.tables[0].rows}
    found = dict.fromkeys(chosen, "float")
    for node in calls(model.module.graph, DECODE):
        (layer,) = node.users
        found[origin(layer)] = f"{arguments(node)['bits']} bits"
    assert found == chosen
    assert len(set(chosen.values())) > 1


def test_a_drop_bounds_what_changes(net: Model) -> None:
    none, _ = made(net, "drop=0")
    some, outcome = made(net, "drop=0.5")
    assert some.bytes <= none.bytes < net.bytes
    assert float(outcome.notes[1].split("; ")[1].split("%")[0]) <= 50


def test_places_that_wait_get_their_bits(net: Model) -> None:
    model, outcome = made(net, 'bytes=0.25 skip="linear"', "insert-fake-quant,")
    chosen = {row[0]: row[4] for row in outcome.tables[0].rows}
    layers = {origin(node): arguments(node)["weight"] for node in calls(model.module.graph, aten.conv2d.default)}
    for name, weight in layers.items():
        bits = f"{weight.args[1]} bits" if weight.target is UNCALIBRATED else "float"
        assert bits == chosen[name]
    assert set(chosen) == set(layers)
    assert not list(calls(model.module.graph, DECODE))
    calibrated, _ = Pipeline.parse("calibrate").run(model, normal(net))
    bounds = {arguments(n)["quant_max"] for n in calls(calibrated.module.graph) if "per_channel" in str(n.target)}
    assert 7 in bounds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bytes=0.2 drop=0.1", "bytes and drop are both given"),
        ("bytes=1.5", "bytes must be a share"),
        ("bytes=0", "bytes must be a share"),
        ("drop=1", "drop must be a share"),
        ("bytes=0.2 bits=3", "bits must be some of"),
        ("bytes=0.2 images=0", "at least 1"),
        ("bytes=0.2 format=lineal", "lineal"),
    ],
)
def test_misuse(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline.parse(f"mixed-precision{{{options}}}")


def test_no_budget(net: Model) -> None:
    with pytest.raises(UsageError, match="has no budget"):
        made(net, "")


def test_a_budget_out_of_reach(net: Model) -> None:
    with pytest.raises(UsageError, match=r"bytes=0\.01 cannot be reached: at least 0\.1.. of today's bytes stay"):
        made(net, "bytes=0.01")

"""Passes that run data treat what depends on stored tensors alone as what it is: the same for every image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

LAYERS = parse_model("""
    model layers(x: f32[1,3,8,8])
      @a.weight : f32[8,3,3,3]
      @table : f32[16,4]
      @k.weight : f32[8,4]
      %a = conv2d(%x, @a.weight)
      %mean = mean(%a, [2, 3])
      %k = linear(@table, @k.weight)
      %t = permute(%k, [1, 0])
      %o = matmul(%mean, %t)
      return out=%o, k=%k
""")
"""A layer that reads a table, as one makes the bias of attention from positions."""

NORM = parse_model("""
    model norm(x: f32[1,16])
      @table : f32[16,8]
      @n.mean : f32[8]
      @n.var : f32[8] = 2.0
      %n = batch_norm(@table, None, None, @n.mean, @n.var, False, 0.1, 1e-05, True)
      %o = matmul(%x, %n)
      return out=%o
""")

SUM = parse_model("""
    model sum(x: f32[1,3,8,8])
      @a.weight : f32[8,3,3,3]
      @b.weight : f32[8,8,3,3]
      @positions : f32[8,1,1]
      @l.weight : f32[6,8]
      %a = conv2d(%x, @a.weight, None, [1, 1], [1, 1])
      %relu = relu(%a)
      %b = conv2d(%relu, @b.weight, None, [1, 1], [1, 1])
      %e = expand(@positions, [1, 8, 8, 8])
      %sum = add(%b, %e)
      %mean = mean(%sum, [2, 3])
      %l = linear(%mean, @l.weight)
      return out=%l
""")
"""Each image gets the same added, such as an embedding of positions."""

QUANTISED = "insert-fake-quant,calibrate"


def run(model: Model, text: str) -> tuple[Model, Outcome]:
    random, shape = np.random.default_rng(0), model.inputs[0].spec.shape
    data = [(random.standard_normal(shape).astype(np.float32), None) for _ in range(20)]
    found, steps = Pipeline.parse(text).run(model, Workspace(data={"calib": lambda: data}, threads=1))
    return found, steps[-1].outcome


def test_biases_are_corrected() -> None:
    x = np.zeros((1, 3, 8, 8), np.float32)
    wanted = LAYERS(x)[1].mean(0)
    as_it_was, corrected = (
        run(LAYERS, f"{QUANTISED}{more}")[0](x)[1].mean(0) for more in ("", ",correct-bias{always=true}")
    )
    assert np.abs(as_it_was - wanted).max() > 1e-4
    np.testing.assert_allclose(corrected, wanted, atol=1e-6)


def test_weights_are_rounded() -> None:
    _, outcome = run(LAYERS, f"{QUANTISED},round-weights{{always=true}}")
    assert "k" in outcome.changed


def test_normalisations_get_their_statistics() -> None:
    found, _ = run(NORM, "recalibrate-batch-norm")
    stored, table = found.module.state_dict(), NORM.module.get_parameter("table").detach()
    torch.testing.assert_close(stored["n.mean"], table.mean(0))
    torch.testing.assert_close(stored["n.var"], table.var(0, correction=0), rtol=1e-2, atol=0.0)


@pytest.mark.parametrize("text", ["prune-channels{macs=0.7}", "factor-low-rank{macs=0.7}"])
def test_layers_are_fitted_to_a_sum(text: str) -> None:
    found, outcome = run(SUM, text)
    assert outcome.changed
    assert found.outputs == SUM.outputs

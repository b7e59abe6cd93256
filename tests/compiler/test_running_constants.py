"""Runs of a model whose constants are computed once."""

from __future__ import annotations

import torch

from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.running.constants import constants
from lvc.compiler.running.run import Run

NETWORK = parse_model("""
    model network(x: f32[1,4])
      @w : f32[4,4]
      @s : f32[4,4]
      %scaled = mul(@w, @s)
      %y = linear(%x, %scaled)
      %z = relu(%y)
      return out=%z
""")


def weight(model: Model) -> torch.Tensor:
    return model.module.get_parameter("w")


def test_what_depends_on_stored_tensors_alone_is_constant() -> None:
    assert [node.name for node in constants(NETWORK.module.graph)] == ["w", "s", "scaled"]


def test_it_gives_what_the_model_gives() -> None:
    frozen, batch = Run(NETWORK, frozen=True), torch.randn(1, 4)
    with torch.no_grad():
        torch.testing.assert_close(frozen(batch)[0], NETWORK.module(batch)[0])
    torch.testing.assert_close(frozen(2 * batch)[0], 2 * frozen(batch)[0])


def test_it_stays_as_it_was() -> None:
    model, batch = NETWORK.copy(), torch.randn(1, 4)
    frozen = Run(model, frozen=True)
    before = frozen(batch)[0]
    with torch.no_grad():
        weight(model).zero_()
    scaled = next(calls(model.module.graph, torch.ops.aten.mul.Tensor))
    assert scaled.name == "scaled"
    torch.testing.assert_close(frozen(batch)[0], before)
    assert not bool(Run(model, frozen=True)(batch)[0].any())

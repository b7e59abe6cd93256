"""Runs of a model whose constants are computed once."""

from __future__ import annotations

import torch

from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.running.constants import constant_value, constants
from lvc.compiler.running.run import Run
from lvc.compiler.running.sweep import Sweep

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


def test_a_sweep_gives_a_constant_in_every_part_as_it_is_stored_now() -> None:
    model = NETWORK.copy()
    sweep = Sweep(model, [torch.randn(3, 4), torch.randn(2, 4)])
    scaled = next(calls(model.module.graph, torch.ops.aten.mul.Tensor))
    with torch.no_grad():
        wanted = weight(model) * model.module.get_parameter("s")
        assert [torch.equal(part, wanted) for part in sweep.past(scaled)] == [True] * 5
        sweep.change(scaled, torch.Tensor.zero_)
        weight(model).mul_(2)
    assert torch.equal(sweep.values(scaled)[0], 2 * wanted)


def test_constants_of_many_steps_are_computed_step_by_step() -> None:
    """Each step reads the one before twice: neither are there as many frames as steps, nor twice the work for each."""
    steps = [f"%s{step} = add(%a{step}, %b{step})" for step in range(1500)]
    read = ["@w", *(f"%s{step}" for step in range(1499))]
    halves = [f"%{half}{step} = mul({read[step]}, 0.5)" for step in range(1500) for half in "ab"]
    body = "\n".join(line for step in range(1500) for line in (*halves[2 * step : 2 * step + 2], steps[step]))
    model = parse_model(f"model deep(x: f32[1,4])\n@w : f32[4,4]\n{body}\n%y = linear(%x, %s1499)\nreturn out=%y")
    last = next(node for node in calls(model.module.graph) if node.name == "s1499")
    assert torch.equal(constant_value(model.module, last), weight(model).detach())

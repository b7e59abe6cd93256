"""The driver of rules: a fixed point that is bounded, names that users know, and an account that is true."""

from __future__ import annotations

from typing import ClassVar

import pytest
from torch.fx import GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, calls, insert_call, replace, tensor
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.rewriting import Rule, rewrite
from lvc.compiler.pipeline.workspace import Workspace

TEXT = """model chain(x: f32[4])
  @w : f32[4]
  %a = relu(%x)
  %b = relu(%a)
  %c = relu(%b)
  %sum_1 = add(%c, @w)
  return out=%sum_1
"""


def relu_of_relu(module: GraphModule, node: Node) -> Node | None:
    operand = node.args[0]
    return operand if isinstance(operand, Node) and operand.target is aten.relu.default else None


def clamp_for_relu(module: GraphModule, node: Node) -> Node:
    return insert_call(node, aten.clamp.default, node.args[0], 0.0)


def relu_for_clamp(module: GraphModule, node: Node) -> Node:
    return insert_call(node, aten.relu.default, node.args[0])


def applied(rules: dict[object, tuple[Rule, ...]], *, once: bool = False) -> tuple[Model, Outcome]:
    model, outcome = parse_model(TEXT), Outcome()
    rewrite(model.module, rules, outcome, once=once)  # type: ignore[arg-type]
    outcome.settle(model.module.graph)
    return model, outcome


def test_what_takes_a_node_s_place_has_its_name_and_origin() -> None:
    model, outcome = applied({aten.relu.default: (clamp_for_relu,)})
    assert [(n.name, n.meta["origin"]) for n in calls(model.module.graph, aten.clamp.default)] == [
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
    ]
    assert (outcome.changed, outcome.removed) == (["a", "b", "c"], [])


def test_what_stood_in_the_graph_keeps_its_own_name() -> None:
    model, outcome = applied({aten.relu.default: (relu_of_relu,)})
    assert "%sum_1 = add(%a, @w)" in model.to_text()
    assert (outcome.changed, outcome.removed) == ([], ["b", "c"])


class Doubling(Pass):
    """Insert a call that takes no other's place."""

    name: ClassVar[str] = "double"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        node = next(calls(model.module.graph, aten.add.Tensor))
        node.args = (insert_call(node, aten.relu.default, node.args[0], name="factor"), node.args[1])
        return Outcome()


def test_what_a_pass_has_made_keeps_its_name_when_a_later_one_takes_out_what_reads_it() -> None:
    made, _ = Pipeline((Doubling(),)).run(parse_model(TEXT))
    factor = next(node for node in made.module.graph.nodes if node.name == "factor")
    replace(next(calls(made.module.graph, aten.add.Tensor)), factor)
    assert factor.name == "factor"


def test_what_a_rewrite_leaves_unread_is_gone() -> None:
    def forget(module: GraphModule, node: Node) -> Node:
        return next(n for n in module.graph.nodes if n.op == "placeholder")

    model, outcome = applied({aten.add.Tensor: (forget,)})
    assert model.to_text().splitlines()[1:] == ["  return out=%x"]
    assert not list(model.module.parameters())
    assert outcome.removed == ["sum_1"]


def test_names_of_what_is_made_tell_for_what() -> None:
    model = parse_model(TEXT)
    node = next(calls(model.module.graph, aten.add.Tensor))
    made = [insert_call(node, aten.relu.default, node.args[0]), insert_call(node, aten.relu.default, node.args[0])]
    assert [n.name for n in made] == ["sum_1_relu", "sum_1_relu_1"]
    stored = add_tensor(model.module, node, "bias", tensor(model.module, node.args[1]).clone())  # type: ignore[union-attr]
    replace(made[0], stored)
    assert (stored.name, stored.target) == ("sum_1_relu", "bias")


def test_rules_that_undo_each_other_are_stopped() -> None:
    rules: dict[object, tuple[Rule, ...]] = {
        aten.relu.default: (clamp_for_relu,),
        aten.clamp.default: (relu_for_clamp,),
    }
    with pytest.raises(CompileError, match="rules rewrite 'c' for ever") as caught:
        applied(rules)
    assert "undoes" in caught.value.help
    model, outcome = applied(rules, once=True)
    assert outcome.changed == ["a", "b", "c"]
    assert "relu" not in model.to_text()


def test_refusals_are_those_of_the_last_sweep() -> None:
    def only_the_first(module: GraphModule, node: Node) -> Node | str:
        return node.args[0] if node.args[0].op != "placeholder" else "it reads an input"  # type: ignore[union-attr, return-value]

    _, outcome = applied({aten.relu.default: (only_the_first,)})
    assert [str(skip) for skip in outcome.skipped] == ["a: it reads an input"]

"""Multiply factors back into one layer where that is no more work.

Two layers of which the second alone reads what the first gives are one layer, if along each axis only one of their
windows slides. Low ranks are left; ranks near the whole, as training or pruning behind a factorisation leaves them, and
layers that someone wrote as two, are not worth two kernels and a tensor in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import arguments, calls, erase_unread, is_call, tensor
from lvc.compiler.ir.layers import LAYERS, factors, set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import si
from lvc.passes.analysis.patterns import left_out
from lvc.passes.low_rank.kernel import Kernel, macs
from lvc.passes.low_rank.layer import Layer, layer_of
from lvc.passes.low_rank.layer import refusal as check_weight
from lvc.passes.low_rank.merging import bias_of, compose, refusal
from lvc.passes.low_rank.placing import put_in_place


@dataclass(frozen=True, kw_only=True)
class MergeLowRank(Pass):
    """Multiply two layers behind each other into one, where that is no more work."""

    name: ClassVar[str] = "merge-low-rank"
    effect: ClassVar[Effect] = Effect.ROUNDING

    only: tuple[str, ...] = option((), "names of the second layers to merge into, with * for any characters")
    skip: tuple[str, ...] = option((), "names of layers to leave alone, with * for any characters")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        unwanted = left_out(calls(model.module.graph, *LAYERS), self.only, self.skip)
        for second in calls(model.module.graph, *LAYERS):
            while (first := _before(second)) is not None:
                reason = unwanted.get(second) or unwanted.get(first) or _merge(model.module, first, second)
                if reason:
                    outcome.skip(second, f"not merged with '{first.name}': {reason}")
                    break
                outcome.change(second)
        return outcome


def _before(second: Node) -> Node | None:
    """The layer whose result this one alone reads."""
    data = factors(second)[0]
    return data if is_call(data, *LAYERS) and list(data.users) == [second] else None


def _merge(module: GraphModule, first: Node, second: Node) -> str | None:
    """Let the second layer do the work of both; or say why not."""
    if reason := check_weight(module, first) or check_weight(module, second):
        return reason
    before, after = layer_of(module, first), layer_of(module, second)
    if before.is_convolution != after.is_convolution:
        return "one is a convolution, and the other is not"
    inner, outer = _bias(module, before), _bias(module, after)
    if reason := refusal(before.kernel, after.kernel, bool(inner.any())):
        return reason
    one, two = (_work(before, after.kernel, merged) for merged in (True, False))
    if one > two:
        return f"one layer has {si(one, 'MACs')}, the two have {si(two, 'MACs')}"
    old = factors(first)
    operands = [operand for operand in first.all_input_nodes if operand.op == "get_attr"]
    merged = compose(before.kernel, after.kernel)
    second.replace_input_with(first, old[0])
    put_in_place(module, second, [merged])
    if bool(inner.any()):
        set_bias(module, second, bias_of(after.kernel, inner, outer))
    module.graph.erase_node(first)
    erase_unread(module, operands)
    return None


def _work(before: Layer, second: Kernel, merged: bool) -> int:
    """The multiply-accumulates of both layers, as one or as two, from shapes alone."""
    kernels = [before.kernel.outline(), second.outline()]
    return before.count * macs([compose(*kernels)] if merged else kernels, before.size)


def _bias(module: GraphModule, layer: Layer) -> torch.Tensor:
    """What a layer adds, ``f64[out]``."""
    stored = tensor(module, arguments(layer.node)["bias"])
    return torch.zeros(layer.kernel.outputs, dtype=torch.float64) if stored is None else stored.detach().double()

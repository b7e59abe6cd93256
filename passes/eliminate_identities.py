"""Take out calls that pass their input on, and merge calls that undo or repeat each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch._ops import OpOverload
from torch.fx import GraphModule

from lvc.compiler.ir.graph import calls, erase_dead, replace
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.identities import Rules, arithmetic, movement, padding

_RULES: Rules = {**movement.RULES, **padding.RULES, **arithmetic.RULES}


@dataclass(frozen=True, kw_only=True)
class EliminateIdentities(Pass):
    """Take out calls that pass their input on, and merge those that undo or repeat each other.

    Out go dropout in evaluation, reshapes, permutes, slices and expansions that keep everything in place, ``x + 0``,
    ``x * 1`` and pools of one element. Pairs of reshapes, permutes, paddings and clamps become one. A symmetric padding
    moves into the convolution or pool after it where that is exact.
    """

    name: ClassVar[str] = "eliminate-identities"
    effect: ClassVar[Effect] = Effect.ROUNDING  # another memory layout may choose another kernel

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        while _sweep(model.module, outcome):
            erase_dead(model.module)
        return outcome


def _sweep(module: GraphModule, outcome: Outcome) -> bool:
    """Look at every call once; say whether any changed, since one rewrite can make room for another."""
    outcome.skipped.clear()
    changed = False
    for node in calls(module.graph):
        assert isinstance(node.target, OpOverload)
        for rule in _RULES.get(node.target, ()):
            found = rule(module, node)
            if found is None:
                continue
            if isinstance(found, str):
                outcome.skip(node, found)
                continue
            changed = True
            if node.name not in outcome.changed:
                outcome.change(node)
            if found is not node:
                replace(node, found)
            break
    return changed

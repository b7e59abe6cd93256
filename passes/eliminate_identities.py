"""Take out calls that pass their input on, and merge calls that undo or repeat each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.rewriting import Rules, rewrite
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.identities import arithmetic, movement, padding

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
        rewrite(model.module, _RULES, outcome)
        return outcome

"""Erase calls and weights that no output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.ir.graph import erase_dead
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class EliminateDead(Pass):
    """Erase calls and weights that no output depends on."""

    name: ClassVar[str] = "eliminate-dead"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        return Outcome(changed=erase_dead(model.module))

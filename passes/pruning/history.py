"""What the steps of a pruning did, as plain data beside its checkpoints: who goes on from one tells of all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from lvc.compiler.ir.model import Model
from lvc.compiler.measure import records
from lvc.compiler.pipeline.passes import Outcome, Pass, Skip
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.channels.proof import Kept


@dataclass(frozen=True)
class Removed:
    """What one step removed: what stays of values by node, and the nodes of stored tensors by the tensors' names; both
    are empty if nothing went."""

    kept: Kept
    stored: dict[str, str]

    @classmethod
    def from_model(cls, model: Model, kept: Kept) -> Removed:
        """A removal from a model, which is as it was."""
        nodes = (node for node in model.module.graph.nodes if node.op == "get_attr")
        return cls(kept, {str(node.target): node.name for node in nodes})


@dataclass
class History:
    """The removals of the steps so far, in order."""

    steps: list[Removed] = field(default_factory=list)

    def to_json(self, outcome: Outcome, workspace: Workspace) -> dict[str, Any]:
        """All that was done and told; with the passes that ran between the steps."""
        around = workspace.surroundings
        return {
            "steps": [{"kept": _written(step.kept), "stored": step.stored} for step in self.steps],
            "notes": outcome.notes,
            "skipped": [asdict(skip) for skip in outcome.skipped],
            "inner": [records.to_json(step) for step in around.step.inner] if around else [],
        }

    @classmethod
    def resume(cls, told: dict[str, Any], outcome: Outcome, workspace: Workspace) -> History:
        """Read what `to_json` wrote, and tell again what was told."""
        outcome.notes += told["notes"]
        outcome.skipped += [skip for skip in (Skip(**data) for data in told["skipped"]) if skip not in outcome.skipped]
        if around := workspace.surroundings:
            around.step.inner += [records.from_json(data, _pass, around.step) for data in told["inner"]]
        return cls([Removed(_read(step["kept"]), step["stored"]) for step in told["steps"]])


def _pass(text: str) -> Pass:
    (item,) = Pipeline.parse(text)
    return item


def _written(kept: Kept) -> dict[str, list[str | None]]:
    """Masks as texts of 0 and 1."""
    return {
        name: [None if mask is None else "".join("01"[bit] for bit in mask.tolist()) for mask in masks]
        for name, masks in kept.items()
    }


def _read(kept: dict[str, list[str | None]]) -> Kept:
    return {
        name: tuple(None if mask is None else torch.tensor([bit == "1" for bit in mask]) for mask in masks)
        for name, masks in kept.items()
    }

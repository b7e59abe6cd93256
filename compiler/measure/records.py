"""The record of a pass that ran as plain data, from which it is made again: reports tell of stages that were kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.comparison.loss import OutputLoss
from lvc.compiler.pipeline.passes import Outcome, Pass, Skip, Table
from lvc.compiler.pipeline.pipeline import Step


def to_json(step: Step) -> dict[str, Any]:
    """A step as JSON has it."""
    measured = dict(step.measured)
    loss = measured.pop("loss", None)
    outcome = step.outcome
    return {
        "number": step.number,
        "total": step.total,
        "pass": str(step.item),
        "changed": outcome.changed,
        "removed": outcome.removed,
        "skipped": [asdict(skip) for skip in outcome.skipped],
        "notes": outcome.notes,
        "tables": [asdict(table) for table in outcome.tables],
        "measured": measured,
        "loss": loss and asdict(loss),
        "inner": [to_json(inner) for inner in step.inner],
    }


def from_json(data: dict[str, Any], parse: Callable[[str], Pass], outer: Step | None = None) -> Step:
    """Make a step of what `to_json` wrote; any exception for data that it did not write."""
    step = Step(int(data["number"]), int(data["total"]), parse(data["pass"]), outer=outer)
    step.outcome = Outcome(
        changed=list(map(str, data["changed"])),
        removed=list(map(str, data["removed"])),
        skipped=[Skip(**skip) for skip in data["skipped"]],
        notes=list(map(str, data["notes"])),
        tables=[_table(table) for table in data["tables"]],
    )
    step.measured = dict(data["measured"])
    if data["loss"]:
        step.measured["loss"] = _loss(data["loss"])
    step.inner = [from_json(inner, parse, step) for inner in data["inner"]]
    return step


def _table(data: dict[str, Any]) -> Table:
    return Table(data["title"], tuple(data["headers"]), tuple(map(tuple, data["rows"])))


def _loss(data: dict[str, Any]) -> Loss:
    outputs = {key: tuple(OutputLoss(**part) for part in data[key]) for key in ("in_all", "alone", "objects")}
    return Loss(**{**data, **outputs})

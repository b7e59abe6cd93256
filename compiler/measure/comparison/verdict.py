"""What is said about outputs that passes moved: the worst first, and what a user must not miss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lvc.compiler.data.batches import takes_data
from lvc.compiler.ir.signature import Value
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.comparison.loss import LEAST, OutputLoss
from lvc.compiler.pipeline.catalogue import SCALING
from lvc.compiler.pipeline.passes import Effect, Outcome, Table
from lvc.compiler.pipeline.pipeline import Step
from lvc.compiler.text import decibels, percent

_MOST_LINES = 4
REMEDY = f"another range estimator, {SCALING}, or leave layers out with skip="


def note_errors(errors: Sequence[OutputLoss], images: int, outcome: Outcome, before: Sequence[OutputLoss] = ()) -> None:
    """Note how far each output is from the floating-point model's, and was ``before``; all of them in a table."""
    outcome.notes += verdict_lines(errors, f"over {images} images", REMEDY, before)
    if errors:
        outcome.tables.append(_table(errors, images))


def loss_lines(steps: Sequence[Step], inputs: tuple[Value, ...]) -> list[str]:
    """Say what the passes that ran have lost together, if one of them moves outputs, and which of them lost most.

    ``inputs`` are those of the model as it was loaded.
    """
    judged = [(step, step.measured["loss"]) for step in steps if "loss" in step.measured]
    if not judged:
        names = ", ".join(
            dict.fromkeys(s.item.name for s in steps if s.item.effect is Effect.LOSSY and s.outcome.places)
        )
        reason = (
            "without images: --data judge=PATH"
            if takes_data(inputs)
            else "images feed a model of one input with a batch"
        )
        return [f"what {names} cost was not judged, {reason}"] if names else []
    loss: Loss = judged[-1][1]
    hardest, most = min(judged, key=lambda pair: pair[1].sqnr_alone)
    where = f"over {loss.images} images {loss.source}, against the model as loaded"
    lines = verdict_lines(loss.in_all, where, hardest.item.remedy)
    lines += verdict_lines(loss.objects, where, hardest.item.remedy)
    if len(judged) > 1:
        lines.append(f"{hardest.item.name} lost most of it: {decibels(most.sqnr_alone)} alone")
    if loss.score is not None and loss.score_as_loaded is not None:
        lines.append(f"{loss.metric} {percent(loss.score, 2)}, {percent(loss.score_as_loaded, 2)} as loaded")
    return lines


def verdict_lines(
    errors: Sequence[OutputLoss], where: str, remedy: str, before: Sequence[OutputLoss] = ()
) -> list[str]:
    """Return a line for each output, the worst first; those that are well share one if they are many."""
    pairs = sorted(zip_longest(errors, before), key=lambda pair: _rank(pair[0]))
    lines = [_line(error, where, remedy, earlier) for error, earlier in pairs]
    shown = max(_MOST_LINES - 1, sum(error.has_collapsed or error.is_damaged for error in errors))
    if rest := pairs[shown + 1 :]:
        lines[shown:] = [f"{len(rest) + 1} more outputs: {decibels(pairs[shown][0].sqnr)} and above"]
    return lines


def _rank(error: OutputLoss) -> tuple[int, float]:
    return (0 if error.has_collapsed else 1 if error.is_damaged else 2), error.sqnr


def _line(error: OutputLoss, where: str, remedy: str, before: OutputLoss | None) -> str:
    earlier = "" if before is None else f", {decibels(before.sqnr)} before"
    if error.has_collapsed:
        places = f"in {percent(error.lost, 0)} of its places the error is as large as what varies"
        if error.of_objects:
            places = f"{percent(error.lost, 0)} of the objects are not found"
        return f"COLLAPSED: {error}{earlier}; {places}. Do not use this model as it is: try {remedy}"
    if error.is_damaged:
        places = f"in {percent(error.damaged, 0)} of its places less than one bit of what varies is left"
        if error.of_objects:
            places = f"{percent(error.damaged, 0)} of the objects are not found where they were"
        if error.is_weak:
            places = f"below {LEAST:g} dB its error has more than a tenth of its power"
        advice = f"Evaluate this model on labelled data before it is used, or try {remedy}"
        return f"DAMAGED: {error}{earlier}; {places}. {advice}"
    mended = "" if before is None else _mended(before)
    return f"output {error} {where}{earlier}{mended}"


def _mended(before: OutputLoss) -> str:
    return "; no longer collapsed" if before.has_collapsed else "; no longer damaged" if before.is_damaged else ""


def _table(errors: Sequence[OutputLoss], images: int) -> Table:
    rows = tuple(
        (
            e.name,
            round(e.sqnr, 2),
            "" if e.agreement is None else round(e.agreement, 4),
            round(e.lost, 4),
            round(e.damaged, 4),
        )
        for e in errors
    )
    return Table(
        f"outputs on {images} images", ("output", "SQNR, dB", "agreement", "places lost", "places damaged"), rows
    )

"""What a pass says about the outputs that it moved: the worst first, and what a user must not miss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lvc.compiler.comparison.loss import OutputLoss
from lvc.compiler.passes import Outcome, Table
from lvc.compiler.text import percent

_MOST_LINES = 4
_CURE = "another observer, equalise-weights, or leave layers out with skip="


def note_errors(errors: Sequence[OutputLoss], images: int, outcome: Outcome, before: Sequence[OutputLoss] = ()) -> None:
    """Note how far each output is from the floating-point model's, and was ``before``; all of them in a table."""
    pairs = sorted(zip_longest(errors, before), key=lambda pair: _rank(pair[0]))
    lines = [_line(error, images, earlier) for error, earlier in pairs]
    shown = max(_MOST_LINES - 1, sum(error.has_collapsed or error.is_damaged for error in errors))
    if rest := pairs[shown + 1 :]:
        lines[shown:] = [f"{len(rest) + 1} more outputs: {pairs[shown][0].sqnr:.1f} dB and above"]
    outcome.notes += lines
    if errors:
        outcome.tables.append(_table(errors, images))


def _rank(error: OutputLoss) -> tuple[int, float]:
    return (0 if error.has_collapsed else 1 if error.is_damaged else 2), error.sqnr


def _line(error: OutputLoss, images: int, before: OutputLoss | None) -> str:
    earlier = "" if before is None else f", {before.sqnr:.1f} dB before"
    if error.has_collapsed:
        places = f"in {percent(error.lost, 0)} of its places the error is as large as what varies"
        return f"COLLAPSED: {error}{earlier}; {places}. Do not use this model as it is: try {_CURE}"
    if error.is_damaged:
        places = f"in {percent(error.damaged, 0)} of its places less than one bit of what varies is left"
        advice = f"Evaluate this model on labelled data before it is used, or try {_CURE}"
        return f"DAMAGED: {error}{earlier}; {places}. {advice}"
    mended = "" if before is None else _mended(before)
    return f"output {error} over {images} images{earlier}{mended}"


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

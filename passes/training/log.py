"""The log of training as files: one JSON object a line, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.files import write_atomically
from lvc.compiler.text import duration
from lvc.passes.training.judgement import Verdict


@dataclass(frozen=True)
class Entry:
    """A line of the log: what training had come to after ``step`` steps, in ``seconds`` of work.

    ``losses`` are the means since the line before, ``judged`` is how the model did on images held out.
    """

    step: int
    epoch: float
    losses: dict[str, float]
    rate: float
    judged: Verdict | None
    images_a_second: float
    seconds: float

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Entry:
        """Read what `asdict` made of an entry."""
        return cls(**{**told, "judged": Verdict(**told["judged"]) if told["judged"] else None})


def write_log(path: Path | None, entries: Sequence[Entry]) -> None:
    """Write all entries; nothing without a path. The file never has a part of a line."""
    if path is not None:
        write_atomically(path, "".join(json.dumps(asdict(entry)) + "\n" for entry in entries).encode())


def draw_log(path: Path | None, name: str, entries: Sequence[Entry]) -> None:
    """Draw the losses, and how the model did on images held out, over the epochs; nothing without a path."""
    if path is None or not entries:
        return
    from lvc.compiler.measure.pictures.canvas import Head
    from lvc.compiler.measure.pictures.panels import Panels

    last = entries[-1]
    head = Head(f"{name}: {last.step} steps", f"{last.epoch:.3g} epochs in {duration(last.seconds)}")
    losses = {
        part: [(entry.epoch, entry.losses[part]) for entry in entries if part in entry.losses] for part in last.losses
    }
    panels = {"loss": losses, **_judged(entries)}
    write_atomically(path, Panels(head, "epoch", panels, from_zero=("loss",)).render(".svg"))


def _judged(entries: Sequence[Entry]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The panel of the share of images that were right, or of the loss where that cannot be told."""
    judged = [(entry.epoch, entry.judged) for entry in entries if entry.judged]
    if not judged:
        return {}
    if any(verdict.right is None for _, verdict in judged):
        return {"loss on images held out": {"loss": [(epoch, verdict.loss) for epoch, verdict in judged]}}
    shares = [(epoch, 100 * (verdict.right or 0) / verdict.images) for epoch, verdict in judged]
    return {"right on images held out, %": {"right": shares}}

"""The log of training as files: one JSON object a line, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.files import write_atomically
from lvc.compiler.text import duration
from lvc.passes.training.judgement import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 3.6  # inches


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
    from lvc.compiler.measure.pictures.canvas import COLOURS, Head, lay_out, render

    epochs = [entry.epoch for entry in entries]
    last = entries[-1]
    head = Head(f"{name}: {last.step} steps", f"{last.epoch:.3g} epochs in {duration(last.seconds)}")

    def draw(figure: Figure) -> None:
        lay_out(figure, head, _HEIGHT)
        left, right = figure.subplots(1, 2)
        for number, part in enumerate(dict.fromkeys(part for entry in entries for part in entry.losses)):
            values = [entry.losses.get(part) for entry in entries]
            left.plot(epochs, values, color=COLOURS[number % len(COLOURS)], marker=".", label=part)
        left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
        left.legend()
        _draw_judged(right, entries)

    write_atomically(path, render(".svg", draw))


def _draw_judged(axes: Axes, entries: Sequence[Entry]) -> None:
    """Draw the share of images that were right, or the loss where that cannot be told."""
    from lvc.compiler.measure.pictures.canvas import COLOURS

    judged = [(entry.epoch, entry.judged) for entry in entries if entry.judged]
    counts = all(verdict.right is not None for _, verdict in judged)
    value: Callable[[Verdict], float] = _percent_right if counts else lambda verdict: verdict.loss
    axes.plot([epoch for epoch, _ in judged], [value(verdict) for _, verdict in judged], color=COLOURS[1], marker=".")
    axes.set(xlabel="epoch", ylabel="right on images held out, %" if counts else "loss on images held out")


def _percent_right(verdict: Verdict) -> float:
    return 100 * (verdict.right or 0) / verdict.images

"""Panels side by side over one axis, each with a few lines by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvc.compiler.measure.pictures.canvas import COLOURS, Head, lay_out, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

_HEIGHT = 3.6  # inches


@dataclass(frozen=True)
class Panels:
    """Lines by name, in panels by what is up; ``from_zero`` are the panels whose axis begins at zero."""

    head: Head
    across: str
    panels: Mapping[str, Mapping[str, Points]]
    from_zero: tuple[str, ...] = ()

    def render(self, suffix: str) -> bytes:
        """The content of a file whose name ends so."""
        return render(suffix, self._draw)

    def _draw(self, figure: Figure) -> None:
        lay_out(figure, self.head, _HEIGHT)
        for place, (up, lines) in enumerate(self.panels.items(), 1):
            axes = figure.add_subplot(1, len(self.panels), place)
            for number, (name, points) in enumerate(lines.items()):
                across, values = zip(*points, strict=True)
                axes.plot(across, values, color=COLOURS[number % len(COLOURS)], marker=".", label=name)
            axes.set(xlabel=self.across, ylabel=up)
            if up in self.from_zero:
                axes.set_ylim(0, None)
            if len(lines) > 1:
                axes.legend()

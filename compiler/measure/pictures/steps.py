"""One value that falls step by step while time goes by, from where it began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvc.compiler.measure.pictures.canvas import COLOURS, GREY, Head, lay_out, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 3.6


@dataclass(frozen=True)
class Steps:
    """``points`` are times and values in their order, at least one; each value holds until the next."""

    head: Head
    across: str
    up: str
    points: Sequence[tuple[float, float]]

    def render(self, suffix: str) -> bytes:
        """The content of a file whose name ends so."""
        return render(suffix, self._draw)

    def _draw(self, figure: Figure) -> None:
        lay_out(figure, self.head, _HEIGHT)
        axes: Axes = figure.subplots()
        times, values = zip(*self.points, strict=True)
        axes.axhline(values[0], color=GREY, linewidth=1)
        (line,) = axes.step(times, values, where="post", color=COLOURS[0], linewidth=1.8)
        line.set_gid("steps")
        axes.plot(times[-1], values[-1], marker="o", color=COLOURS[0], markersize=5)
        axes.annotate(f"{values[-1]:.3g}", (times[-1], values[-1]), (6, 0), textcoords="offset points", va="center")
        axes.set(xlabel=self.across, ylabel=self.up, xlim=(0, None))
        axes.margins(y=0.15)

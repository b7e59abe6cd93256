"""Many curves from 0 to 100 per cent: the worst are named, worst first, all others stay grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from lvc.compiler.measure.pictures.canvas import COLOURS, GREY, MARKERS, Head, lay_out, render, shortened
from lvc.compiler.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

_HEIGHT = 4.6
_NAMED = len(COLOURS)


@dataclass(frozen=True)
class Curves:
    """Curves of positive values by name, over per cent from shares of one; ``noun`` is what has a curve.

    A curve is worse the higher it lies on the mean, or the lower, if ``high_is_good``.
    """

    head: Head
    across: str
    up: str
    noun: str
    curves: Mapping[str, Points]
    high_is_good: bool

    def render(self, suffix: str) -> bytes:
        """The content of a file whose name ends so."""
        return render(suffix, self._draw)

    def worst_first(self) -> list[str]:
        sign = 1 if self.high_is_good else -1
        return sorted(self.curves, key=lambda name: sign * fmean(y for _, y in self.curves[name]))

    def _draw(self, figure: Figure) -> None:
        lay_out(figure, self.head, _HEIGHT)
        axes: Axes = figure.subplots()
        names = self.worst_first()
        for number, name in enumerate(names):
            self._curve(axes, number, name, len(names) - _NAMED)
        axes.set(xlabel=self.across, ylabel=self.up, xlim=(0, 100), xticks=range(0, 101, 10), ylim=(0, None))
        if names:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=f"{self.noun}, worst first", alignment="left")

    def _curve(self, axes: Axes, number: int, name: str, others: int) -> None:
        points = sorted(self.curves[name])
        is_named = number < _NAMED
        label = shortened(name) if is_named else "" if number > _NAMED else f"{counted(others, 'other')}"
        (line,) = axes.plot(
            [100 * x for x, _ in points],
            [y for _, y in points],
            color=COLOURS[number] if is_named else GREY,
            marker=MARKERS[number] if is_named else ".",
            markersize=5,
            linewidth=1.8 if is_named else 1,
            zorder=3 - number / len(self.curves),
            label=label or "_",
        )
        line.set_gid(f"curve-{number}")

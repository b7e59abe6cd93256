"""Rows of dots: a name on the left, one dot a series, the numbers of one series written on the right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvc.compiler.measure.pictures.canvas import COLOURS, GREY, INK, MARKERS, Head, lay_out, render, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _FOOT = 0.25, 0.75


@dataclass(frozen=True)
class Row:
    """A name, and its value of each series, once a panel. A value may be missing; an infinite one lies at an edge."""

    name: str
    panels: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Dots:
    """Rows from top to bottom over panels from left to right.

    ``series`` has what the key says of each; ``written`` is the one whose numbers stand beside the rows, in so many
    ``digits``. ``reference`` is a value that all are held against, ``apart`` the number of rows at the end that sum up.
    """

    head: Head
    axis: str
    panels: Sequence[str]
    rows: Sequence[Row]
    series: Mapping[str, str]
    written: str
    digits: int = 1
    reference: float | None = None
    apart: int = 0
    edges: tuple[str, str] = ("-inf", "inf")

    def render(self, suffix: str) -> bytes:
        """The content of a file whose name ends so."""
        return render(suffix, self._draw)

    def _draw(self, figure: Figure) -> None:
        lay_out(figure, self.head, _FOOT + _ROW * (len(self.rows) + (len(self.panels) > 1)), self._key())
        columns: Any = figure.subplots(1, len(self.panels), sharex=True, sharey=True, squeeze=False)[0]
        columns[0].set_xlim(*self._span())
        columns[0].locator_params(axis="x", nbins=9 if len(columns) == 1 else 6, steps=[1, 2, 5, 10])
        for number, axes in enumerate(columns):
            self._fill(axes, number)
        columns[0].set_yticks(range(len(self.rows)), [shortened(row.name) for row in self.rows])
        columns[0].set_ylim(len(self.rows) - 0.4, -0.6)

    def _key(self) -> list[Any]:
        from matplotlib.lines import Line2D

        return [
            Line2D([], [], linestyle="", marker=MARKERS[place], color=COLOURS[place], label=text)
            for place, text in enumerate(self.series.values())
        ]

    def _fill(self, axes: Axes, panel: int) -> None:
        rows = [row.panels[panel] for row in self.rows]
        low, high = axes.get_xlim()
        axes.set_xlabel(self.axis)
        axes.xaxis.set_major_formatter("{x:g}")
        if self.panels[panel]:
            axes.set_title(self.panels[panel])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        for place, values in enumerate(rows):
            if found := [min(max(value, low), high) for value in values.values()]:
                axes.hlines(place, min(found), max(found), color=GREY, linewidth=1, zorder=1)
        if self.reference is not None:
            axes.axvline(self.reference, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        if self.apart:
            axes.axhline(len(rows) - self.apart - 0.5, color=GREY, linewidth=0.8)
        for number, name in enumerate(self.series):
            self._mark(axes, panel, number, {place: row[name] for place, row in enumerate(rows) if name in row})
        self._write(axes, rows)

    def _mark(self, axes: Axes, panel: int, number: int, values: Mapping[int, float]) -> None:
        """Draw the dots of one series, those beyond all numbers as hollow ones at the edge."""
        limits = axes.get_xlim()
        for is_inside in (True, False):
            chosen = {place: value for place, value in values.items() if math.isfinite(value) == is_inside}
            if not chosen:
                continue
            dots = axes.scatter(
                [min(max(value, limits[0]), limits[1]) for value in chosen.values()],
                list(chosen),
                s=34 if number == 0 else 24,
                marker=MARKERS[number],
                facecolor=COLOURS[number] if is_inside else "white",
                edgecolor=COLOURS[number],
                zorder=4 - number / 10,
                clip_on=False,
            )
            dots.set_gid(f"dots-{panel}-{number}" + ("" if is_inside else "-edge"))

    def _write(self, axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the numbers of the series that has them, right of the rows."""
        colour = COLOURS[list(self.series).index(self.written)]
        across = axes.get_yaxis_transform()
        for place, row in enumerate(rows):
            if self.written in row:
                text = self._text(row[self.written])
                axes.text(1.025, place, text, transform=across, color=colour, va="center", fontweight="bold")

    def _text(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if math.isfinite(value) else self.edges[value > 0]

    def _span(self) -> tuple[float, float]:
        """What an axis shows: all values, and 0 where there is a reference, with a little room."""
        values = [
            value for row in self.rows for panel in row.panels for value in panel.values() if math.isfinite(value)
        ]
        values += [0.0, self.reference] if self.reference is not None else [] if values else [0.0]
        room = 0.04 * (max(values) - min(values)) or 1.0
        return min(values) - room * (self.reference is None or min(values) < 0), max(values) + room

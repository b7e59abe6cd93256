"""Grouped bars as SVG: one panel above the other, one group of bars a label, one colour a series."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, LEFT, TOP, FOOT = 1080, 250, 52, 78, 78
GAP = 0.26  # share of a group that is left empty
INK, FAINT, GRID = "#1f2933", "#66717d", "#e3e7eb"
COLOURS = ("#c8102e", "#31708f", "#7ba7bc", "#c3ccd3", "#8f9aa3", "#b9a26a")


@dataclass(frozen=True)
class Panel:
    """A title and for each label the value of each series; a series may be missing."""

    title: str
    groups: Mapping[str, Mapping[str, float]]


def bar_chart(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """Draw positive values; the first series is marked and carries its values, and a line stands at 1."""
    series = list(dict.fromkeys(name for panel in panels for group in panel.groups.values() for name in group))
    height = TOP + len(panels) * (PANEL + FOOT)
    body = [_text(LEFT, 28, title, size=18, weight=600), _text(LEFT, 48, subtitle, size=12, colour=FAINT)]
    body += _legend(series)
    for number, panel in enumerate(panels):
        body += _panel(panel, series, TOP + number * (PANEL + FOOT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _legend(series: Sequence[str]) -> Iterator[str]:
    x = WIDTH - 20.0
    for number, name in reversed(list(enumerate(series))):
        x -= 7.2 * len(name) + 26
        yield f'<rect x="{x:.1f}" y="17" width="12" height="12" rx="2" fill="{COLOURS[number % len(COLOURS)]}"/>'
        yield _text(x + 18, 28, name, size=13)


def _panel(panel: Panel, series: Sequence[str], top: float) -> Iterator[str]:
    highest = max([1.0, *(value for group in panel.groups.values() for value in group.values())])
    step = _step(highest)
    most = step * math.ceil(highest * 1.02 / step)
    values: list[str] = []
    left, right, bottom = LEFT, WIDTH - 20, top + PANEL

    def y(value: float) -> float:
        return bottom - value / most * (PANEL - 26)

    yield _text(left, top + 8, panel.title, size=13, weight=600)
    for tick in range(round(most / step) + 1):
        at = y(tick * step)
        yield f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>'
        yield _text(left - 8, at + 4, f"{tick * step:g}", size=11, colour=FAINT, anchor="end")
    room = (right - left) / max(1, len(panel.groups))
    for place, (label, group) in enumerate(panel.groups.items()):
        start = left + room * (place + GAP / 2)
        width = room * (1 - GAP) / max(1, len(series))
        for number, name in enumerate(series):
            if name in group:
                at, x = y(group[name]), start + number * width
                yield (
                    f'<rect x="{x:.1f}" y="{at:.1f}" width="{width - 1:.1f}" height="{bottom - at:.1f}" '
                    f'fill="{COLOURS[number % len(COLOURS)]}"><title>{escape(f"{label}, {name}: {group[name]:.2f}")}'
                    "</title></rect>"
                )
                if number == 0:
                    values.append(_value(x + width / 2, at - 4, group[name]))
        yield _label(left + room * (place + 0.5), bottom + 14, label)
    line = y(1.0)
    yield f'<line x1="{left}" x2="{right}" y1="{line:.1f}" y2="{line:.1f}" stroke="{INK}" stroke-dasharray="5 4"/>'
    yield from values


def _step(most: float) -> float:
    return next((step for step in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0) if most / step <= 7), most / 5)


def _value(x: float, y: float, value: float) -> str:
    return _text(x, y, f"{value:.2f}", size=10, colour=COLOURS[0], anchor="middle", weight=600)


def _label(x: float, y: float, text: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{INK}" text-anchor="end" '
        f'transform="rotate(-24 {x:.1f} {y:.1f})">{escape(text)}</text>'
    )


def _text(
    x: float, y: float, text: str, *, size: int, colour: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}" paint-order="stroke" stroke="#ffffff" stroke-width="3">{escape(text)}</text>'
    )

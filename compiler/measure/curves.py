"""Many curves in one picture, as PNG or SVG bytes: those that move most are named, all others stay grey."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 540, 70, 250, 50, 50
NAMED = 8
COLOURS = ("#c8102e", "#31708f", "#b9a26a", "#5b8c5a", "#7d5ba6", "#d97b29", "#4c6a92", "#8f9aa3")
INK, GREY, GRID = "#1f2933", "#c3ccd3", "#e3e7eb"


@dataclass(frozen=True)
class _Line:
    """One curve in pixels; no name for one that stays grey."""

    name: str
    colour: str
    pixels: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Picture:
    """What is drawn: grid lines with their values, and curves, those in grey first."""

    columns: tuple[tuple[float, str], ...]
    rows: tuple[tuple[float, str], ...]
    lines: tuple[_Line, ...]


def svg_curves(title: str, curves: Mapping[str, Points]) -> bytes:
    """Draw curves over shares from 0 to 1."""
    picture = _lay_out(curves)
    body = [f'<text x="{LEFT}" y="28" font-size="17" fill="{INK}">{escape(title)}</text>']
    for x, text in picture.columns:
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        body.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" font-size="12" text-anchor="middle">{text}</text>')
    for y, text in picture.rows:
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        body.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" font-size="12" text-anchor="end">{text}</text>')
    for place, line in enumerate(picture.lines):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.pixels)
        body.append(f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        if line.name:
            x, y = _label(picture, place)
            body.append(f'<text x="{x}" y="{y}" font-size="13" fill="{line.colour}">{escape(line.name)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, sans-serif">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *body, "</svg>\n"]).encode()


def png_curves(title: str, curves: Mapping[str, Points]) -> bytes:
    """Draw the same as `svg_curves` as an image of pixels."""
    from PIL import Image, ImageDraw, ImageFont

    picture = _lay_out(curves)
    image = Image.new("RGB", (WIDTH, HEIGHT), "#ffffff")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    draw.text((LEFT, 14), title, INK, ImageFont.load_default(17))
    for x, text in picture.columns:
        draw.line([(x, TOP), (x, HEIGHT - BOTTOM)], GRID)
        draw.text((x, HEIGHT - BOTTOM + 8), text, INK, font, anchor="ma")
    for y, text in picture.rows:
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID)
        draw.text((LEFT - 8, y), text, INK, font, anchor="rm")
    for place, line in enumerate(picture.lines):
        draw.line(list(line.pixels), line.colour, 2)
        if line.name:
            x, y = _label(picture, place)
            draw.text((x, y), line.name, line.colour, font, anchor="ls")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _lay_out(curves: Mapping[str, Points]) -> _Picture:
    values = [value for points in curves.values() for _, value in points] or [0.0]
    low, high = min(values), max([*values, min(values) + 1e-9])

    def pixel(share: float, value: float) -> tuple[float, float]:
        across = LEFT + share * (WIDTH - RIGHT - LEFT)
        return across, HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    marked = sorted(curves, key=lambda name: -abs(curves[name][-1][1] - curves[name][0][1]))[:NAMED]
    grey = [_Line("", GREY, tuple(pixel(*point) for point in curves[name])) for name in curves if name not in marked]
    named = [
        _Line(name, COLOURS[place % len(COLOURS)], tuple(pixel(*point) for point in curves[name]))
        for place, name in enumerate(marked)
    ]
    steps = [step / 5 for step in range(6)]
    columns = tuple((pixel(step, low)[0], f"{step:.0%}") for step in steps)
    rows = tuple((pixel(0, low + step * (high - low))[1], f"{low + step * (high - low):.3g}") for step in steps)
    return _Picture(columns, rows, (*grey, *named))


def _label(picture: _Picture, place: int) -> tuple[float, float]:
    """Return where the name of a curve stands: beside the picture, one below the other."""
    first = sum(not line.name for line in picture.lines)
    return WIDTH - RIGHT + 16, TOP + 14 + 20 * (place - first)

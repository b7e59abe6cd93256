"""What all pictures share: the look, the head with title and key, and the way to bytes.

The same picture gives the same bytes: no dates, no random identifiers. Texts of an SVG stay texts.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError
from lvc.compiler.text import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

INK, FAINT, GREY, GRID = "#1f2933", "#5b6670", "#b4bec6", "#e3e7eb"
COLOURS = ("#c8102e", "#1b6ca8", "#d98324", "#3f8f5b", "#7d5ba6", "#2aa6a6", "#8c6d46", "#d46a9f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
WIDTH = 10.0
"""Inches."""

_FORMATS = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}
_MARGIN = 0.12
_TITLE, _SUBTITLE, _KEY = 0.36, 0.24, 0.32
_LONGEST = 48
_LOOK: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 9.5,
    "grid.color": GRID,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "savefig.dpi": 120,
    "svg.fonttype": "none",
    "svg.hashsalt": "lvc",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Head:
    """What stands above a picture: what it shows, and how it is read."""

    title: str
    subtitle: str


def check_drawable(path: Path) -> None:
    """Raise `UsageError` if no picture of that name can be made; called before long work whose result is drawn."""
    from lvc.compiler.files import check_writable

    if path.suffix not in _FORMATS:
        raise UsageError(f"cannot draw '{path.name}'", help=f"end the name in {' or '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib, which is not installed", help="pip install matplotlib")
    check_writable(path)


def render(suffix: str, draw: Callable[[Figure], None]) -> bytes:
    """Let ``draw`` fill an empty figure; return it as the content of a file whose name ends so.

    matplotlib's settings, those of the user's own file too, are as before afterwards.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with style.context(_LOOK, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in any script may stand there
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(content, format=suffix.removeprefix("."), metadata=_FORMATS[suffix])
    return content.getvalue()


def lay_out(figure: Figure, head: Head, height: float, key: Sequence[Artist] = ()) -> None:
    """Give a figure its size, so many inches below the head, and write the head, with a key of what the marks mean."""
    top = _MARGIN + _TITLE + _SUBTITLE + (_KEY if key else 0)
    figure.set_size_inches(WIDTH, height + top)
    left, rest = _MARGIN / WIDTH, height + top

    def at(inches: float) -> float:
        return 1 - (_MARGIN + inches) / rest

    figure.text(left, at(0), printable(head.title), fontsize=13, fontweight="bold", va="top")
    figure.text(left, at(_TITLE - 0.06), printable(head.subtitle), color=FAINT, va="top")
    if key:
        place = (left, at(_TITLE + _SUBTITLE - 0.1))
        legend = figure.legend(handles=list(key), loc="upper left", bbox_to_anchor=place, ncols=len(key))
        legend.set_in_layout(False)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, height / rest), w_pad=_MARGIN, h_pad=0.06)


def shortened(name: str) -> str:
    """The name of a layer as it fits beside an axis: its middle left out if it is long."""
    name = printable(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"

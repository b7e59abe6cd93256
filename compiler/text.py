"""How numbers and tables look in everything that lvc prints. No heavy import: the command line's help uses it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_LARGE = ("", "k", "M", "G", "T", "P")
_SMALL = ("", "m", "µ", "n", "p")

_ONNX_NODE = re.compile(r"node (.+) \([^()]+\)")


def si(value: float, unit: str = "", *, digits: int = 3) -> str:
    """Print a number with an SI prefix and so many significant digits: ``si(1.814e9, "MACs")`` is ``1.81 GMACs``.

    Counts below one thousand that are whole stay whole; bytes use powers of ten as disks and networks do.
    """
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    step = 0
    if value:
        step = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))) / 3)
    step = max(1 - len(_SMALL), min(len(_LARGE) - 1, step))
    prefix = _LARGE[step] if step >= 0 else _SMALL[-step]
    scaled = value / 1000.0**step
    whole = step == 0 and float(value).is_integer()
    number = f"{scaled:.0f}" if whole else _significant(scaled, digits)
    return f"{number} {prefix}{unit}".rstrip()


def percent(share: float, digits: int = 1) -> str:
    """Print a share of one: ``percent(0.821)`` is ``82.1 %``."""
    return f"{share * 100:.{digits}f} %"


def title(origin: str) -> str:
    """The user's name in an origin, for tables: ``node Conv_41 (Conv)`` is ``Conv_41``, a module's path stays."""
    found = _ONNX_NODE.fullmatch(origin)
    return found[1] if found else origin


def decibels(value: float) -> str:
    """Print a signal-to-noise ratio: ``26.9 dB``, ``exact`` without noise, ``lost`` without signal."""
    if math.isfinite(value):
        return f"{value:.1f} dB"
    return "exact" if value > 0 else "lost"


def counted(number: int, noun: str) -> str:
    """Print so many of a thing, named in the singular: ``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """Print a time for people: ``812 µs``, ``34.7 ms``, ``2.31 s``, ``3 min 12 s``."""
    if not math.isfinite(seconds) or abs(seconds) < 60:
        return si(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shape(sizes: Sequence[int]) -> str:
    """Print a shape as ``1x3x224x224``; ``scalar`` for none."""
    return "x".join(map(str, sizes)) or "scalar"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """Lay out columns two spaces apart under their headers, without trailing spaces.

    ``align`` has one letter a column, ``l`` or ``r``; its last letter stands for all columns after it, and nothing
    means left. Cells are made printable, so text from a file cannot steer the terminal.
    """
    columns = len(headers)
    align = (align + (align[-1:] or "l") * columns)[:columns]
    lines = [[printable(str(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(columns)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    )


def printable(text: str) -> str:
    """Replace control characters by ``?``."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _significant(value: float, digits: int) -> str:
    before = len(str(abs(int(float(f"{value:.{digits - 1}e}")))))
    return f"{value:.{max(0, digits - before)}f}"

"""What must hold of a compiled model, as the table ``[checks]`` of a recipe says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lvc.compiler.measure.choices import AGREEMENT, METRICS, TOP1
from lvc.compiler.recipe.table import Table

ORIGINAL = "original"
"""In place of an engine: the model as it was loaded, compiled by lvc for the same target."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]*)")
_BYTES = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True)
class Limits:
    """``max_drop`` and ``min_accuracy`` are in points of a percent of ``metric`` on the data set ``data``.

    ``agreement`` is with the first choices of the model as it was loaded, and needs no labels. ``max_bytes`` is of the
    written file, ``max_latency`` in seconds. ``min_speedup`` is how many times as fast as ``against``, which runs the
    model as it was loaded, on ``threads`` threads. ``max_loss`` and ``require`` are those of the command line.
    """

    data: str = ""
    metric: str = TOP1
    max_drop: float | None = None
    min_accuracy: float | None = None
    max_loss: str | None = None
    require: str | None = None
    max_bytes: float | None = None
    max_latency: float | None = None
    min_speedup: float | None = None
    against: str = ""
    threads: int = 1

    @classmethod
    def read(cls, table: Table) -> Limits:
        """Read the table; `UsageError` with the place of what is wrong."""
        limits = cls(
            data=table.take("data", str) or "",
            metric=table.one_of("metric", METRICS, TOP1),
            max_drop=table.number("max-drop", 0, 100),
            min_accuracy=table.number("min-accuracy", 0, 100),
            max_loss=_loss(table),
            require=_requirement(table),
            max_bytes=_amount(table, "max-bytes", _BYTES, "600 kB"),
            max_latency=_amount(table, "max-latency", _SECONDS, "2.5 ms"),
            min_speedup=table.number("min-speedup", 0),
            against=_engine(table),
            threads=_threads(table),
        )
        table.finish()
        scored = next((key for key in ("max-drop", "min-accuracy") if key in table), None)
        if scored and not limits.data:
            help = 'name one of [data], for example data = "test"'
            raise table.error(f"'{scored}' needs a data set to measure {limits.metric} on", scored, help=help)
        if "min-accuracy" in table and limits.metric == AGREEMENT:
            raise table.error("'min-accuracy' needs labels", "min-accuracy", help="bound the agreement with max-drop")
        if "min-speedup" in table and not limits.against:
            help = f'for example against = "onnxruntime", or against = "{ORIGINAL}"'
            raise table.error("'min-speedup' needs something to be faster than", "min-speedup", help=help)
        if "against" in table and "min-speedup" not in table:
            raise table.error("'against' stands without 'min-speedup'", "against")
        return limits

    @property
    def scores(self) -> bool:
        """Whether the artefact is run on a data set."""
        return self.max_drop is not None or self.min_accuracy is not None

    @property
    def times(self) -> bool:
        """Whether the artefact is timed."""
        return self.max_latency is not None or self.min_speedup is not None

    @property
    def any(self) -> bool:
        """Whether anything is checked."""
        own = self.scores or self.times or self.max_bytes is not None
        return own or self.max_loss is not None or self.require is not None


def _engine(table: Table) -> str:
    found = table.take("against", str)
    if found is None:
        return ""
    from lvc.compiler.bench.engine import engine_names

    return table.one_of("against", [ORIGINAL, *engine_names()], "")


def _threads(table: Table) -> int:
    found = table.take("threads", int)
    if found is not None and found < 1:
        raise table.error("'threads' must be an integer from 1", "threads", why=f"it is {found}")
    return found or 1


def _loss(table: Table) -> str | None:
    from lvc.compiler.measure.comparison.loss_bound import LossBound

    return table.parsed("max-loss", LossBound.parse)


def _requirement(table: Table) -> str | None:
    from lvc.compiler.measure.coverage import Requirement

    return table.parsed("require", Requirement.parse)


def _amount(table: Table, key: str, units: dict[str, float], example: str) -> float | None:
    """Return an amount that is written with its unit, or of bytes as an integer too."""
    if key not in table:
        return None
    if "" in units and table.is_integer(key):
        return table.number(key, 0)
    text = table.take(key, str) or ""
    match = _AMOUNT.fullmatch(text.strip())
    if not match or match[2] not in units:
        known = ", ".join(filter(None, units))
        raise table.error(f"'{key}' cannot be '{text}'", key, help=f'for example "{example}"; units: {known}')
    return float(match[1]) * units[match[2]]

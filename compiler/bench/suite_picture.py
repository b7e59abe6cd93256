"""The suite as a picture: the speed of each engine beside that of the fastest peer, model by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvc.compiler.bench.suite import OURS, Entry, engines_of, geometric_mean, threads_of
from lvc.compiler.measure.pictures.canvas import Head
from lvc.compiler.measure.pictures.dots import Dots, Row
from lvc.compiler.text import counted


def speed_picture(entries: Sequence[Entry], conditions: str) -> Dots:
    """A panel for each number of threads; models worst first, their geometric means below.

    ``conditions`` is a sentence on the machine and what was run.
    """
    threads = threads_of(entries)
    rows = [Row(entry.model, [_relative_speeds(entry, count) for count in threads]) for entry in entries]
    rows = sorted(filter(_is_raced, rows), key=lambda row: row.panels[0].get(OURS, 0.0))
    means = [_means([row.panels[place] for row in rows]) for place in range(len(threads))]
    return Dots(
        Head(
            f"Speed of lvc and of other engines on {counted(len(rows), 'vision model')}",
            f"Further right is faster; the dashed line is the fastest engine other than lvc. Worst first. {conditions}",
        ),
        "speed, the fastest other engine = 1",
        [counted(count, "thread") for count in threads],
        [*rows, Row("geometric mean", means)],
        {name: name for count in threads for name in engines_of(entries, count)},
        written=OURS,
        digits=2,
        reference=1.0,
        apart=1,
    )


def _relative_speeds(entry: Entry, threads: int) -> dict[str, float]:
    """How many times as fast as the fastest peer each engine is; nothing without a peer."""
    if threads not in entry.runs or not (peers := entry.peers(threads)):
        return {}
    best = min(speed.best for speed in peers.values())
    return {name: best / speed.best for name, speed in entry.runs[threads].items()}


def _is_raced(row: Row) -> bool:
    return any(row.panels)


def _means(panel: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in panel for name in values)
    return {name: geometric_mean(values[name] for values in panel if name in values) for name in names}

"""What is told of a factorisation: which layers became what, what that cost, and why the others stayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison import signal
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.passes import Outcome, Table
from lvc.compiler.text import decibels, si
from lvc.passes.low_rank.blocks import Item, Weighed, exclude
from lvc.passes.low_rank.heads import Heads
from lvc.passes.low_rank.joint import size_of, today
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option


def tell(before: Model, after: Model, weighed: Weighed, chosen: Mapping[Item, Option], outcome: Outcome) -> None:
    """Say what has become of the layers and of the model."""
    old, new = totals(layers(before)), totals(layers(after))
    pairs = [("MACs", old.macs, new.macs), ("parameters", old.parameters, new.parameters)]
    sizes = ", ".join(f"{name} {si(a)} -> {si(b)} ({b / max(1, a):.3f}x)" for name, a, b in pairs)
    counts = [
        f"{sum(isinstance(item, kind) for item in chosen)} of {of_all} {told}"
        for kind, told in ((Layer, "layers factored"), (Heads, "products of attention factored jointly"))
        if (of_all := sum(isinstance(item, kind) for item in weighed))
    ]
    outcome.notes.append(f"{', '.join(counts or ['0 of 0 layers factored'])}; {sizes}")
    rows = tuple(_row(item, found, chosen.get(item)) for item, found in weighed.items())
    headers = ("layer", "as", "error", "MACs", "after", "ms", "after", "tried and rejected")
    outcome.tables.append(Table("factors", headers, rows))
    known = {skip.node for skip in outcome.skipped}
    for item, found in weighed.items():
        if item not in chosen and item.node.name not in known:
            rival = next((other for other in chosen if exclude(item, other)), None)
            outcome.skip(item.node, f"{rival.name} is factored instead" if rival else why_left(found))


def _row(item: Item, found: Sequence[Option], pick: Option | None) -> tuple[str | int | float, ...]:
    before = today(item).macs
    after = before if pick is None else size_of(item, pick).macs
    shown = ("as it is", "") if pick is None else (pick.name, _error(pick))
    times = _times(found, pick)
    tried = ", ".join(f"{one.name} {_error(one)}" for one in found if one is not pick)
    return (item.name, *shown, before, after, *times, tried)


def _times(found: Sequence[Option], pick: Option | None) -> tuple[str, str]:
    """Milliseconds of a layer before and after, where they were measured."""
    timed = next((one.times for one in (pick, *found) if one is not None and one.times), None)
    if timed is None:
        return "", ""
    before, after = timed
    return f"{before * 1e3:.3f}", f"{(before if pick is None else after) * 1e3:.3f}"


def why_left(found: Sequence[Option]) -> str:
    """Why none of the options of a layer was taken."""
    if not found:
        return "no ranks make it cheaper"
    timed = [(one.times[1], one.times[0], one.name) for one in found if one.times]
    if timed:
        fastest, before, name = min(timed)
        if fastest >= before:
            return f"its factors are not faster: {name} takes {fastest * 1e3:.3f} ms, the layer {before * 1e3:.3f} ms"
    return f"{found[0].name}, {_error(found[0])}, saves less for what it loses than factors elsewhere"


def _error(one: Option) -> str:
    return decibels(signal.decibels(1.0, one.own))

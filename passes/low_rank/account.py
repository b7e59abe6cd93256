"""What is told of a factorisation: which layers became what, what that cost, and why the others stayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison import signal
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.passes import Outcome, Table
from lvc.compiler.text import decibels, si
from lvc.passes.low_rank.costs import size_today, size_with
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option

Weighed = Mapping[Layer, Sequence[Option]]


def tell(before: Model, after: Model, weighed: Weighed, chosen: Mapping[Layer, Option], outcome: Outcome) -> None:
    """Say what has become of the layers and of the model."""
    old, new = totals(layers(before)), totals(layers(after))
    pairs = [("MACs", old.macs, new.macs), ("parameters", old.parameters, new.parameters)]
    sizes = ", ".join(f"{name} {si(a)} -> {si(b)} ({b / max(1, a):.3f}x)" for name, a, b in pairs)
    outcome.notes.append(f"{len(chosen)} of {len(weighed)} layers factored; {sizes}")
    rows = tuple(_row(layer, found, chosen.get(layer)) for layer, found in weighed.items())
    headers = ("layer", "as", "error", "MACs", "after", "ms", "after", "tried and rejected")
    outcome.tables.append(Table("factors", headers, rows))
    known = {skip.node for skip in outcome.skipped}
    for layer, found in weighed.items():
        if layer not in chosen and layer.node.name not in known:
            outcome.skip(layer.node, why_left(found))


def _row(layer: Layer, found: Sequence[Option], pick: Option | None) -> tuple[str | int | float, ...]:
    before = size_today(layer).macs
    after = before if pick is None else size_with(layer, pick.kernels).macs
    shown = ("as it is", "") if pick is None else (pick.name, _error(pick))
    times = _times(found, pick)
    tried = ", ".join(f"{one.name} {_error(one)}" for one in found if one is not pick)
    return (origin(layer.node), *shown, before, after, *times, tried)


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

"""The options that bring a model down to a budget, and their coming into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.layers import set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.text import duration
from lvc.passes.low_rank.costs import MACS
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option
from lvc.passes.low_rank.placing import put_in_place
from lvc.passes.low_rank.search import choose
from lvc.passes.low_rank.timing import KernelTimes

_TRIES, _TOLERANCE = 5, 0.05


def within(
    weighed: Mapping[Layer, Sequence[Option]], today: Mapping[Layer, float], full: float, share: float, name: str
) -> dict[Layer, Option]:
    """The options that bring a model of cost ``full`` down to a share of it; `UsageError` where none do."""
    rest, least = full - sum(today.values()), least_share(weighed, today, full)
    if least > share:
        raise UsageError(
            f"the target cannot be reached: at least {least:.3f} of today's {name} stay",
            why="every layer that may be factored is then at the least ranks that were tried",
            help="ask for less, skip fewer layers, or prune channels as well",
        )
    return choose(weighed, today, share * full - rest)


def least_share(weighed: Mapping[Layer, Sequence[Option]], today: Mapping[Layer, float], full: float) -> float:
    """What stays of a cost ``full`` with the cheapest option of every layer, as a share of it; 0 of nothing."""
    saved = sum(max([0.0, *(today[layer] - one.cost for one in found)]) for layer, found in weighed.items())
    return (full - saved) / full if full else 0.0


def timed(layer: Layer, found: Sequence[Option], times: KernelTimes) -> list[Option]:
    """Options with their seconds on the target as their cost.

    One of each method tells how fast the method's kernels are. By that the others are foreseen, and only those are
    measured that no faster one beats by its own error.
    """
    pace = {}
    for one in sorted(found, key=lambda one: abs(one.cost - 0.5 * MACS.of_layer(layer))):
        if one.method not in pace:
            pace[one.method] = times.measure(layer, [one.kernels])[0] / one.cost
    kept: list[Option] = []
    for one in sorted(found, key=lambda one: one.cost * pace[one.method]):
        if not kept or one.own < kept[-1].own:
            kept.append(one)
    before, *seconds = times.measure(layer, [[layer.kernel], *(one.kernels for one in kept)])
    return [replace(one, cost=taken, times=(before, taken)) for one, taken in zip(kept, seconds, strict=True)]


def by_latency(
    model: Model,
    weighed: Mapping[Layer, Sequence[Option]],
    share: float,
    times: KernelTimes,
    outcome: Outcome,
) -> dict[Layer, Option]:
    """The options whose model takes the wanted share of today's latency as a whole, as near as was found.

    Kernels by themselves promise what the model does not quite keep, so it is measured, and more or less asked for.
    `UsageError` where not even kernels by themselves promise it.
    """
    stopwatch = times.stopwatch
    today = {layer: times.measure(layer, [[layer.kernel]])[0] for layer in weighed}
    full = max(times.whole, sum(today.values()))
    goal = share * (1 - _TOLERANCE / 2)
    low, high = (0.0, 0.0), (1.0, 1.0)  # what was asked for, and what came of it
    least = least_share(weighed, today, full)
    asked, best = max(goal, min(least, share)), None
    for _ in range(_TRIES):
        chosen = within(weighed, today, full, asked, f"latency on {stopwatch.name}")
        twin = model.copy(share_tensors=True)
        nodes = {node.name: node for node in twin.module.graph.nodes}
        carry_out(twin, {replace(layer, node=nodes[layer.node.name]): one for layer, one in chosen.items()})
        race = stopwatch.compare(twin, model)
        if best is None or _miss(race.share, share) < _miss(best[0].share, share):
            best = race, chosen
        if share * (1 - _TOLERANCE) <= race.share <= share:
            break
        low, high = (low, (asked, race.share)) if race.share > goal else ((asked, race.share), high)
        before, guess = asked, low[0] + (goal - low[1]) * (high[0] - low[0]) / max(high[1] - low[1], 1e-9)
        asked = max(guess, least)
        if asked == before:
            break
    assert best is not None
    race, chosen = best
    if race.share >= 1:
        outcome.notes.append(f"left as it is: no factors make it faster on {stopwatch.name}")
        return {}
    outcome.notes.append(
        f"latency on {stopwatch.name} {race.share:.3f}x, in turns (at best {duration(race.other)} before, "
        f"{duration(race.seconds)} after)"
    )
    if race.share > share * (1 + _TOLERANCE):
        outcome.notes.append(
            f"that misses the target of {share:g}x: the model as a whole gains less than its kernels promise by "
            f"themselves, {least:.3f}x at best; ask for less, or try again on an idle machine"
        )
    return chosen


def _miss(found: float, wanted: float) -> tuple[bool, float]:
    """How far a share is from that which is wanted; one above it is worse than any below."""
    return found > wanted, abs(found - wanted)


def carry_out(model: Model, chosen: Mapping[Layer, Option]) -> None:
    """Put options in the places of their layers."""
    for layer, one in chosen.items():
        put_in_place(model.module, layer.node, one.kernels)
        if one.bias is not None:
            set_bias(model.module, layer.node, one.bias)
    model.module.recompile()

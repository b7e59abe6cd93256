"""The options that bring a model down to a budget, and their coming into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lvc.compiler.ir.layers import set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.workspace import Race
from lvc.compiler.text import duration
from lvc.passes.budget.language import out_of_reach
from lvc.passes.budget.latency import NEAR, until_fast
from lvc.passes.low_rank.costs import size_today
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option
from lvc.passes.low_rank.placing import put_in_place
from lvc.passes.low_rank.search import choose
from lvc.passes.low_rank.timing import KernelTimes

Weighed = Mapping[Layer, Sequence[Option]]


@dataclass(frozen=True)
class Budget:
    """What may stay of a model: the goal as it was given, what is counted in sentences, and how much of that the model
    has today, and each of its layers that may be factored."""

    goal: tuple[str, float]
    name: str
    full: float
    today: Mapping[Layer, float]

    def check(self, least: Mapping[Layer, float]) -> None:
        """Raise `UsageError` if too much stays with each layer at the least that it can cost."""
        if (share := self.share(least)) > self.goal[1]:
            raise out_of_reach(
                self.goal,
                share,
                self.name,
                "every layer that may be factored is then at the least ranks that are tried",
                ("skip fewer layers", "or prune channels as well"),
            )

    def share(self, costs: Mapping[Layer, float]) -> float:
        """What stays if some layers cost so much, as a share of today's; 0 of nothing."""
        saved = sum(self.today[layer] - cost for layer, cost in costs.items())
        return (self.full - saved) / self.full if self.full else 0.0

    def within(self, weighed: Weighed, share: float) -> dict[Layer, Option]:
        """The options that bring the model down to a share of today's cost."""
        rest = self.full - sum(self.today.values())
        return choose(weighed, self.today, share * self.full - rest)


def within(weighed: Weighed, budget: Budget) -> dict[Layer, Option]:
    """The options that bring a model down to its budget; `UsageError` where none do."""
    budget.check(_least(weighed, budget))
    return budget.within(weighed, budget.goal[1])


def _least(weighed: Weighed, budget: Budget) -> dict[Layer, float]:
    return {layer: min([budget.today[layer], *(one.cost for one in found)]) for layer, found in weighed.items()}


def timed(layer: Layer, found: Sequence[Option], times: KernelTimes) -> list[Option]:
    """Options with their seconds on the target as their cost.

    One of each method tells how fast the method's kernels are. By that the others are foreseen, and only those are
    measured that no faster one beats by its own error.
    """
    pace = {}
    for one in sorted(found, key=lambda one: abs(one.cost - 0.5 * size_today(layer).macs)):
        if one.method not in pace:
            pace[one.method] = times.measure(layer, [one.kernels])[0] / one.cost
    kept: list[Option] = []
    for one in sorted(found, key=lambda one: one.cost * pace[one.method]):
        if not kept or one.own < kept[-1].own:
            kept.append(one)
    before, *seconds = times.measure(layer, [[layer.kernel], *(one.kernels for one in kept)])
    return [replace(one, cost=taken, times=(before, taken)) for one, taken in zip(kept, seconds, strict=True)]


def by_latency(
    model: Model, weighed: Weighed, share: float, times: KernelTimes, outcome: Outcome
) -> dict[Layer, Option]:
    """The options whose model takes the wanted share of today's latency as a whole, as near as was found.

    Kernels by themselves promise what the model does not quite keep. `UsageError` where not even they promise it.
    """
    stopwatch = times.stopwatch
    today = {layer: times.measure(layer, [[layer.kernel]])[0] for layer in weighed}
    full = max(times.whole, sum(today.values()))
    budget = Budget(("latency", share), f"latency on {stopwatch.name}", full, today)
    budget.check(_least(weighed, budget))
    least = budget.share(_least(weighed, budget))

    def race(chosen: Mapping[Layer, Option]) -> Race:
        twin = model.copy(share_tensors=True)
        nodes = {node.name: node for node in twin.module.graph.nodes}
        carry_out(twin, {replace(layer, node=nodes[layer.node.name]): one for layer, one in chosen.items()})
        return stopwatch.compare(twin, model)

    found = until_fast(
        share,
        lambda asked: budget.within(weighed, asked),
        lambda chosen: budget.share({layer: one.cost for layer, one in chosen.items()}),
        race,
        least,
    )
    if found.race.share >= 1:
        outcome.notes.append(f"left as it is: no factors make it faster on {stopwatch.name}")
        return {}
    outcome.notes.append(
        f"latency on {stopwatch.name} {found.race.share:.3f}x, in turns (at best {duration(found.race.other)} before, "
        f"{duration(found.race.seconds)} after)"
    )
    if found.race.share > share * (1 + NEAR):
        outcome.notes.append(
            f"that misses the target of {share:g}x: the model as a whole gains less than its kernels promise by "
            f"themselves, {least:.3f}x at best; ask for less, or try again on an idle machine"
        )
    return found.choice


def carry_out(model: Model, chosen: Mapping[Layer, Option]) -> None:
    """Put options in the places of their layers."""
    for layer, one in chosen.items():
        put_in_place(model.module, layer.node, one.kernels)
        if one.bias is not None:
            set_bias(model.module, layer.node, one.bias)
    model.module.recompile()

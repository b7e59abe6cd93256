"""The options that bring a model down to a budget, and their coming into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lvc.compiler.ir.layers import set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.workspace import Race
from lvc.compiler.text import duration
from lvc.passes.budget.language import out_of_reach
from lvc.passes.budget.latency import NEAR, until_fast
from lvc.passes.low_rank.blocks import Block, Item, Together, Weighed, blocks, offers
from lvc.passes.low_rank.costs import size_today
from lvc.passes.low_rank.heads import Heads
from lvc.passes.low_rank.joint import HeadsOption
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.narrowing import Place, narrow, place_of
from lvc.passes.low_rank.options import Option
from lvc.passes.low_rank.placing import put_in_place
from lvc.passes.low_rank.search import choose
from lvc.passes.low_rank.timing import KernelTimes

_WAYS = ("skip fewer layers", "or prune channels as well")


@dataclass(frozen=True)
class Budget:
    """What may stay of a model: the goal as it was given, what is counted in sentences, and how much of that the model
    has today, and each of its layers that may be factored."""

    goal: tuple[str, float]
    name: str
    full: float
    today: Mapping[Item, float]

    def check(self, least: Mapping[Item, float]) -> None:
        """Raise `UsageError` if too much stays with each layer at the least that it can cost."""
        if (share := self.least_share(least)) > self.goal[1]:
            raise out_of_reach(
                self.goal,
                share,
                self.name,
                "every layer that may be factored is then at the least ranks that are tried",
                _WAYS,
            )

    def share(self, costs: Mapping[Item, float]) -> float:
        """What stays if some layers cost so much, as a share of today's; 0 of nothing."""
        saved = sum(self.today[item] - cost for item, cost in costs.items())
        return (self.full - saved) / self.full if self.full else 0.0

    def least_share(self, least: Mapping[Item, float]) -> float:
        """What stays with the set of each block that saves most, as a share of today's."""
        best = (min(block.sets, key=lambda some: sum(least[i] - self.today[i] for i in some)) for block in self._blocks)
        return self.share({item: least[item] for some in best for item in some})

    def offers(self, weighed: Weighed) -> dict[Block, list[Together]]:
        """The options of things that share layers, together."""
        return {block: offers(block, weighed, self.today) for block in self._blocks}

    def within(self, found: Mapping[Block, Sequence[Together]], share: float) -> dict[Item, Option]:
        """The options that bring the model down to a share of today's cost, of those that `offers` found."""
        chosen = choose(found, dict.fromkeys(found, 0.0), (share - 1) * self.full)
        return {item: one for block in chosen.values() for item, one in block.parts.items()}

    @cached_property
    def _blocks(self) -> list[Block]:
        return blocks(list(self.today))


def within(weighed: Weighed, budget: Budget) -> dict[Item, Option]:
    """The options that bring a model down to its budget; `UsageError` where none do."""
    budget.check(_least(weighed, budget))
    return budget.within(budget.offers(weighed), budget.goal[1])


def _least(weighed: Weighed, budget: Budget) -> dict[Item, float]:
    return {item: min([budget.today[item], *(one.cost for one in found)]) for item, found in weighed.items()}


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


def timed_heads(heads: Heads, found: Sequence[HeadsOption], times: KernelTimes) -> list[Option]:
    """Narrower heads with their seconds on the target as their cost."""
    before, *seconds = times.of_heads(heads, [heads.product.width, *(one.rank for one in found)])
    return [replace(one, cost=taken, times=(before, taken)) for one, taken in zip(found, seconds, strict=True)]


def by_latency(
    model: Model, weighed: Weighed, share: float, times: KernelTimes, outcome: Outcome
) -> dict[Item, Option]:
    """The options whose model takes the wanted share of today's latency as a whole, as near as was found.

    Kernels by themselves promise what the model does not quite keep. `UsageError` where not even they promise it
    and the model, as fast as they can make it, takes longer; how long is told.
    """
    stopwatch = times.stopwatch
    today = {item: times.today(item) for item in weighed}
    sets = [block.sets for block in blocks(list(today))]
    full = max(times.whole, sum(max(sum(today[item] for item in some) for some in of_a_block) for of_a_block in sets))
    budget = Budget(("latency", share), f"latency on {stopwatch.name}", full, today)
    least, offered = budget.least_share(_least(weighed, budget)), budget.offers(weighed)

    def race(chosen: Mapping[Item, Option]) -> Race:
        twin = model.copy(share_tensors=True)
        carry_out(twin, chosen)
        return stopwatch.compare(twin, model)

    found = until_fast(
        share,
        lambda asked: budget.within(offered, asked),
        lambda chosen: budget.share({item: one.cost for item, one in chosen.items()}),
        race,
        least,
    )
    is_far = found.race.share > share * (1 + NEAR)
    if is_far and least > share:
        why = "every layer that may be factored then has those factors whose kernels are the fastest by themselves"
        raise out_of_reach(budget.goal, min(1.0, found.race.share), budget.name, why, _WAYS)
    if found.race.share >= 1:
        outcome.notes.append(f"left as it is: no factors make it faster on {stopwatch.name}")
        return {}
    outcome.notes.append(
        f"latency on {stopwatch.name} {found.race.share:.3f}x, in turns (at best {duration(found.race.other)} before, "
        f"{duration(found.race.seconds)} after)"
    )
    if is_far:
        outcome.notes.append(
            f"that misses the target of {share:g}x: the model as a whole gains less than its kernels promise by "
            f"themselves, {least:.3f}x at best; ask for less, or try again on an idle machine"
        )
    return found.choice


def carry_out(model: Model, chosen: Mapping[Item, Option]) -> None:
    """Put options in the places of their layers, which are known in the model by their names."""
    narrow(model, {place: one.narrow for place, one in heads_in(chosen).items()})
    nodes = {node.name: node for node in model.module.graph.nodes}
    for layer, one in chosen.items():
        if isinstance(layer, Heads):
            continue
        node = nodes[layer.node.name]
        put_in_place(model.module, node, one.kernels)
        if one.bias is not None:
            set_bias(model.module, node, one.bias)
    model.module.recompile()


def heads_in(chosen: Mapping[Item, Option]) -> dict[Place, HeadsOption]:
    """The options of heads among those that were chosen, by the places of their products."""
    return {
        place_of(heads.product): one
        for heads, one in chosen.items()
        if isinstance(heads, Heads) and isinstance(one, HeadsOption)
    }

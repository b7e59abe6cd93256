"""Write layers as products of smaller ones, where that costs less and the outputs hardly move.

Each layer is factored by a method, or by every one that applies, at several ranks; with data, the factors minimise the
error of the layer's output and the last of them is fitted to it. How far the model's outputs move for each is
measured, and one search over all layers takes those that save most for it. Then the factors are fitted once more in
order, each to what its layer gave before, from what the factored layers before it now give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.patterns import left_out
from lvc.passes.budget.costs import COSTS, MACS, Cost, size_of
from lvc.passes.budget.language import SHARES, BudgetedPass, tell_of_missing_data
from lvc.passes.fitting.layers import Target, check_layer, fit_layers
from lvc.passes.low_rank.account import tell
from lvc.passes.low_rank.blocks import Item, Weighed, each_by_itself, layers_of
from lvc.passes.low_rank.choice import Budget, by_latency, carry_out, heads_in, timed, timed_heads, within
from lvc.passes.low_rank.costs import size_today, size_with
from lvc.passes.low_rank.factorisation import METHODS, Factorisation, Parts, Ranks
from lvc.passes.low_rank.heads import Bases, Heads, bases_of
from lvc.passes.low_rank.joint import METHOD as JOINT
from lvc.passes.low_rank.joint import find_heads, heads_option, ranks_at_levels, today
from lvc.passes.low_rank.layer import Layer, layer_of, refusal
from lvc.passes.low_rank.narrowing import check_narrowing
from lvc.passes.low_rank.options import (
    Option,
    factor,
    least_cost,
    nearest_of_each_level,
    ranks_above_noise,
    ranks_by_cost,
)
from lvc.passes.low_rank.ranks import by_energy
from lvc.passes.low_rank.statistics import Statistics
from lvc.passes.low_rank.study import Study
from lvc.passes.low_rank.timing import KernelTimes

_RULES = {
    "rank": "the rank of every layer, or of both sides for a method that has two",
    "energy": "the share of each layer's energy to keep, from which follows its rank",
    "vbmf": "ranks by what is above the noise in the weights, as Bayesian factorisation finds it",
}
_NEAR = 2.0
"""Of a layer's options those are timed whose error is at most so many times that of the best."""


@dataclass(frozen=True, kw_only=True)
class FactorLowRank(BudgetedPass):
    """Write layers as products of smaller ones, where that costs less and the outputs hardly move."""

    name: ClassVar[str] = "factor-low-rank"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    remedy: ClassVar[str] = "a larger share to keep, more calibration images, or training afterwards"

    meanings: ClassVar[Mapping[str, str]] = {**SHARES, **_RULES}
    counts: ClassVar[tuple[str, ...]] = ("rank", "multiple", "images")

    rank: int | None = option(None, _RULES["rank"])
    energy: float | None = option(None, _RULES["energy"])
    vbmf: bool = option(False, _RULES["vbmf"])
    method: str = option(
        "auto", f"how layers are factored: auto (the best of all), {', '.join((JOINT, *METHODS.names()))}"
    )
    only: tuple[str, ...] = option((), "names of the layers to factor, with * for any characters (default: all)")
    skip: tuple[str, ...] = option((), "names of layers to leave alone, with * for any characters")
    multiple: int | None = option(None, "ranks are multiples of this (default: 1; for latency, the vectors')")
    images: int = option(256, "use at most so many images of it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in ("auto", JOINT):
            METHODS.parse(self.method)
        if self.method == JOINT and self.vbmf:
            raise UsageError(
                "there is no noise to tell the heads of attention from", help="give rank=, energy= or a budget"
            )

    @property
    def _methods(self) -> list[Factorisation]:
        names = {"auto": METHODS.names(), JOINT: []}.get(self.method, [self.method])
        return [METHODS.parse(name) for name in names]

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        (kind, _), outcome, before = self.goal, Outcome(), model.copy(share_tensors=True)
        cost = COSTS.get(kind, MACS)
        layers = self._layers(model, outcome)
        found = self._of_rank([*layers, *self._heads(model, layers, outcome)], outcome)
        data = self.calibration(model, workspace)
        budget = Budget(self.goal, cost.name, cost.of(size_of(model)), {one: cost.of(today(one)) for one in found})
        if kind in COSTS:
            budget.check({one: self._least(one, cost) for one in found})
        study = Study(model, list(dict.fromkeys(layer for one in found for layer in layers_of(one))), data)
        times = None if self.latency is None else KernelTimes(workspace.target_stopwatch(), model)
        weighed = dict[Item, list[Option]]()
        for one in workspace.progress.track(found, "factoring layers", len(found)):
            if isinstance(one, Heads):
                weighed[one] = self._narrower(model, one, study, workspace, times)
            else:
                options = self._options(one, study, workspace, cost, outcome)
                weighed[one] = self._judged(one, options, study, cost, times)
        chosen = self._choose(model, weighed, budget, times, outcome)
        _prove(model, chosen, workspace, outcome)
        carry_out(model, chosen)
        for one in chosen:
            outcome.change(one.node)
        if data is not None and chosen:
            used = fit_layers(before, model, _targets(before, chosen), data)
            outcome.notes.append(f"the last factor of each layer fitted on {used.different} images")
        tell(before, model, weighed, chosen, outcome)
        if data is None:
            tell_of_missing_data(outcome)
        return outcome

    def _layers(self, model: Model, outcome: Outcome) -> list[Layer]:
        """The layers that may be factored by themselves; the outcome says of all others why not."""
        graph = model.module.graph
        if not self._methods:
            return []
        nodes = list(calls(graph, *LAYERS))
        unwanted = left_out([*nodes, *calls(graph, *self._products)], self.only, self.skip)
        found = []
        for node in nodes:
            reason = unwanted.get(node) or refusal(model.module, node)
            if reason is None:
                layer = layer_of(model.module, node)
                reason = self._refusal(layer)
            if reason is None:
                found.append(layer)
            else:
                outcome.skip(node, reason)
        return found

    @property
    def _products(self) -> tuple[OpOverload, ...]:
        """The calls that may be products of attention, if those are looked at."""
        return (aten.matmul.default,) if self.method in ("auto", JOINT) and not self.vbmf else ()

    def _heads(self, model: Model, layers: Sequence[Layer], outcome: Outcome) -> list[Heads]:
        """The products of attention that may be factored jointly; the outcome says of all others why not."""
        if not self._products:
            return []
        found = find_heads(model, layers, self.only, self.skip, outcome)
        taken = {layer.node for heads in found for layer in layers_of(heads)}
        for node in calls(model.module.graph, *LAYERS):
            if self.method == JOINT and node not in taken:
                outcome.skip(node, "it makes and reads no heads of attention")
        return found

    def _of_rank(self, items: Sequence[Item], outcome: Outcome) -> Sequence[Item]:
        """What has the rank that all shall have; `UsageError` if nothing has."""
        if self.rank is None or not items:
            return items
        most = {one: self._full_rank(one) for one in items}
        if self.rank > max(most.values()):
            raise UsageError(f"no layer has a rank of {self.rank}: the largest is {max(most.values())}")
        for one in items:
            if self.rank > most[one]:
                outcome.skip(one.node, f"its full rank is {most[one]}, and rank={self.rank} is asked for")
        return [one for one in items if self.rank <= most[one]]

    def _full_rank(self, item: Item) -> int:
        if isinstance(item, Heads):
            return item.product.width
        return max(min(method.full_ranks(item.kernel)) for method in self._taking(item))

    def _least(self, item: Item, cost: Cost) -> float:
        """The least to which a budget brings the cost of a layer or of heads."""
        multiple = self.multiple or 1
        if isinstance(item, Heads):
            return min(cost.of(item.sizes[rank]) for rank in (item.product.width, *ranks_at_levels(item, multiple)))
        return least_cost(self._taking(item), item, cost, multiple)

    def _taking(self, layer: Layer) -> list[Factorisation]:
        """The methods that take a layer."""
        return [method for method in self._methods if method.refusal(layer.kernel) is None]

    def _refusal(self, layer: Layer) -> str | None:
        """Why no method takes a layer; None if one does."""
        if self._taking(layer):
            return None
        return self._methods[0].refusal(layer.kernel) if len(self._methods) == 1 else "no method takes it"

    def _options(self, layer: Layer, study: Study, workspace: Workspace, cost: Cost, outcome: Outcome) -> list[Option]:
        """The ways to write a layer that cost less than it, each fitted to what it gives."""
        today, found, failed = cost.of(size_today(layer)), list[Option](), list[str]()
        for method in self._taking(layer):
            parts = Parts.of(method, layer.kernel, study.known[layer])
            for ranks in self._ranks(parts, layer, cost, workspace):
                if cost.of(size_with(layer, method.outline(layer.kernel, ranks))) >= today:
                    continue
                made = factor(parts, layer, ranks, cost)
                if isinstance(made, str):
                    failed.append(made)
                else:
                    found.append(study.fitted(layer, made))
        if failed and not found:
            outcome.skip(layer.node, failed[0])
        return found

    def _judged(
        self, layer: Layer, found: Sequence[Option], study: Study, cost: Cost, times: KernelTimes | None
    ) -> list[Option]:
        """The options of a layer that may be worth it, judged by the model's outputs."""
        today = cost.of(size_today(layer))
        if times is not None:
            kept = timed(layer, nearest_of_each_level(found, today, _NEAR), times)
        elif self.is_budget:
            kept = nearest_of_each_level(found, today)
        else:
            kept = sorted(found, key=lambda one: one.own * one.cost)[:1]
        return [study.judged(layer, one) for one in kept]

    def _narrower(
        self, model: Model, heads: Heads, study: Study, workspace: Workspace, times: KernelTimes | None
    ) -> list[Option]:
        """The ways to make heads narrower that cost less, judged by the model's outputs, without their kernels."""
        cost, bases = COSTS.get(self.goal[0], MACS), bases_of(model, heads, study.known)
        ranks = self._ranks_of_heads(heads, bases, workspace)
        made = [heads_option(model, heads, bases, rank, cost) for rank in ranks if rank < heads.product.width]
        fitted = [study.fitted(heads.judged, one) if heads.reads else one for one in made]
        kept = fitted if times is None else timed_heads(heads, fitted, times)
        return [replace(study.judged(heads.judged, one), kernels=(), bias=None) for one in kept]

    def _ranks_of_heads(self, heads: Heads, bases: Bases, workspace: Workspace) -> Sequence[int]:
        if self.is_budget:
            return ranks_at_levels(heads, self._multiple(workspace))
        if self.energy is not None:
            return by_energy([bases.energies], self.energy)
        return [] if self.rank is None else [self.rank]

    def _multiple(self, workspace: Workspace) -> int:
        return self.multiple or (1 if self.latency is None else workspace.target_stopwatch().channel_multiple)

    def _ranks(self, parts: Parts, layer: Layer, cost: Cost, workspace: Workspace) -> list[Ranks]:
        full = parts.method.full_ranks(layer.kernel)
        if self.is_budget:
            return ranks_by_cost(parts, layer, cost, self._multiple(workspace))
        if self.energy is not None:
            return [by_energy(parts.spectra, self.energy)]
        if self.vbmf:
            return [ranks_above_noise(Parts.of(parts.method, layer.kernel, Statistics()))]
        assert self.rank is not None
        return [tuple(self.rank for _ in full)] if all(self.rank <= most for most in full) else []

    def _choose(
        self, model: Model, weighed: Weighed, budget: Budget, times: KernelTimes | None, outcome: Outcome
    ) -> dict[Item, Option]:
        if not self.is_budget:
            return each_by_itself(weighed)
        if times is not None:
            return by_latency(model, weighed, self.goal[1], times, outcome)
        return within(weighed, budget)


def _prove(model: Model, chosen: Mapping[Item, Option], workspace: Workspace, outcome: Outcome) -> None:
    """Prove that heads in another basis compute the same, and that dimensions are removed as if they were zero."""
    if not (found := heads_in(chosen)):
        return
    full, ranks = {place: one.whole for place, one in found.items()}, {place: one.rank for place, one in found.items()}
    apart = check_narrowing(model, full, ranks, workspace.seed)
    outcome.notes.append(f"proof: heads in their new bases, and with zeros for what is removed, {apart:.1e} apart")


def _targets(before: Model, chosen: Mapping[Item, Option]) -> dict[Node, Target]:
    """The last factors that can be fitted, and the layers that read narrower heads, each with what it gave."""
    known = {node.name: node for node in before.module.graph.nodes}
    nodes = [item.fitted if isinstance(item, Heads) else item.node for item in chosen]
    return {node: Target(known[node.name]) for node in nodes if node and check_layer(node) is None}

"""Write layers as products of smaller ones, where that costs less and the outputs hardly move.

Each layer is factored by a method, or by every one that applies, at several ranks; with data, the factors minimise the
error of the layer's output and the last of them is fitted to it. How far the model's outputs move for each is
measured, and one search over all layers takes those that save most for it. Then the factors are fitted once more in
order, each to what its layer gave before, from what the factored layers before it now give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from lvc.compiler.errors import UsageError
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
from lvc.passes.low_rank.choice import Budget, by_latency, carry_out, timed, within
from lvc.passes.low_rank.costs import size_today, size_with
from lvc.passes.low_rank.factorisation import METHODS, Factorisation, Parts, Ranks
from lvc.passes.low_rank.layer import Layer, layer_of, refusal
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
    method: str = option("auto", f"how layers are factored: auto (the best of all), {', '.join(METHODS.names())}")
    only: tuple[str, ...] = option((), "names of the layers to factor, with * for any characters (default: all)")
    skip: tuple[str, ...] = option((), "names of layers to leave alone, with * for any characters")
    multiple: int | None = option(None, "ranks are multiples of this (default: 1; for latency, the vectors')")
    images: int = option(256, "use at most so many images of it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method != "auto":
            METHODS.parse(self.method)

    @property
    def _methods(self) -> list[Factorisation]:
        return [METHODS.parse(name) for name in (METHODS.names() if self.method == "auto" else [self.method])]

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        (kind, _), outcome, before = self.goal, Outcome(), model.copy(share_tensors=True)
        cost = COSTS.get(kind, MACS)
        found = self._of_rank(self._layers(model, outcome), outcome)
        data = self.calibration(model, workspace)
        budget = Budget(self.goal, cost.name, cost.of(size_of(model)), {one: cost.of(size_today(one)) for one in found})
        if kind in COSTS:
            budget.check({layer: least_cost(self._taking(layer), layer, cost, self.multiple or 1) for layer in found})
        study = Study(model, found, data)
        times = None if self.latency is None else KernelTimes(workspace.target_stopwatch(), model)
        weighed = {}
        for layer in workspace.progress.track(found, "factoring layers", len(found)):
            options = self._options(layer, study, workspace, cost, outcome)
            weighed[layer] = self._judged(layer, options, study, cost, times)
        chosen = self._choose(model, weighed, budget, times, outcome)
        carry_out(model, chosen)
        for layer in chosen:
            outcome.change(layer.node)
        if data is not None and chosen:
            used = fit_layers(before, model, _targets(before, chosen), data)
            outcome.notes.append(f"the last factor of each layer fitted on {used.different} images")
        tell(before, model, weighed, chosen, outcome)
        if data is None:
            tell_of_missing_data(outcome)
        return outcome

    def _layers(self, model: Model, outcome: Outcome) -> list[Layer]:
        """The layers that may be factored; the outcome says of all others why not."""
        nodes = list(calls(model.module.graph, *LAYERS))
        unwanted = left_out(nodes, self.only, self.skip)
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

    def _of_rank(self, layers: Sequence[Layer], outcome: Outcome) -> Sequence[Layer]:
        """The layers that have the rank that all shall have; `UsageError` if none has."""
        if self.rank is None or not layers:
            return layers
        most = {one: max(min(m.full_ranks(one.kernel)) for m in self._taking(one)) for one in layers}
        if self.rank > max(most.values()):
            raise UsageError(f"no layer has a rank of {self.rank}: the largest is {max(most.values())}")
        for layer in layers:
            if self.rank > most[layer]:
                outcome.skip(layer.node, f"its full rank is {most[layer]}, and rank={self.rank} is asked for")
        return [layer for layer in layers if self.rank <= most[layer]]

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

    def _ranks(self, parts: Parts, layer: Layer, cost: Cost, workspace: Workspace) -> list[Ranks]:
        full = parts.method.full_ranks(layer.kernel)
        if self.is_budget:
            liked = 1 if self.latency is None else workspace.target_stopwatch().channel_multiple
            return ranks_by_cost(parts, layer, cost, self.multiple or liked)
        if self.energy is not None:
            return [by_energy(parts.spectra, self.energy)]
        if self.vbmf:
            return [ranks_above_noise(Parts.of(parts.method, layer.kernel, Statistics()))]
        assert self.rank is not None
        return [tuple(self.rank for _ in full)] if all(self.rank <= most for most in full) else []

    def _choose(
        self,
        model: Model,
        weighed: Mapping[Layer, Sequence[Option]],
        budget: Budget,
        times: KernelTimes | None,
        outcome: Outcome,
    ) -> dict[Layer, Option]:
        if not self.is_budget:
            return {layer: found[0] for layer, found in weighed.items() if found}
        if times is not None:
            return by_latency(model, weighed, self.goal[1], times, outcome)
        return within(weighed, budget)


def _targets(before: Model, chosen: Mapping[Layer, Option]) -> dict[Node, Target]:
    """The last factors that can be fitted, each with what its layer gave."""
    known = {node.name: node for node in before.module.graph.nodes}
    return {layer.node: Target(known[layer.node.name]) for layer in chosen if check_layer(layer.node) is None}

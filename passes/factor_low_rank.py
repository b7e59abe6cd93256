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
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.patterns import left_out
from lvc.passes.fitting.layers import Target, check_layer, fit_layers
from lvc.passes.low_rank.account import tell
from lvc.passes.low_rank.choice import by_latency, carry_out, timed, within
from lvc.passes.low_rank.costs import COSTS, MACS, Cost
from lvc.passes.low_rank.factorisation import METHODS, Factorisation, Parts, Ranks
from lvc.passes.low_rank.layer import Layer, layer_of, refusal
from lvc.passes.low_rank.options import (
    Option,
    factor,
    nearest_of_each_level,
    ranks_above_noise,
    ranks_by_cost,
)
from lvc.passes.low_rank.ranks import by_energy
from lvc.passes.low_rank.statistics import Statistics
from lvc.passes.low_rank.study import Study
from lvc.passes.low_rank.timing import KernelTimes
from lvc.passes.pruning.budget import SHARES

DATA = "calib"
"""The data set that is used if there is one."""

_RULES = {
    "rank": "the rank of every layer, or of both sides for a method that has two",
    "energy": "the share of each layer's energy to keep, from which follows its rank",
}
_MEANING = {**SHARES, **_RULES}
_NEAR = 2.0
"""Of a layer's options those are timed whose error is at most so many times that of the best."""


@dataclass(frozen=True, kw_only=True)
class FactorLowRank(Pass):
    """Write layers as products of smaller ones, where that costs less and the outputs hardly move."""

    name: ClassVar[str] = "factor-low-rank"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    remedy: ClassVar[str] = "a larger share to keep, more calibration images, or training afterwards"

    macs: float | None = option(None, SHARES["macs"])
    params: float | None = option(None, SHARES["params"])
    bytes: float | None = option(None, SHARES["bytes"])
    latency: float | None = option(None, SHARES["latency"])
    rank: int | None = option(None, _RULES["rank"])
    energy: float | None = option(None, _RULES["energy"])
    vbmf: bool = option(False, "ranks by what is above the noise in the weights, as Bayesian factorisation finds it")
    method: str = option("auto", f"how layers are factored: auto (the best of all), {', '.join(METHODS.names())}")
    only: tuple[str, ...] = option((), "names of the layers to factor, with * for any characters (default: all)")
    skip: tuple[str, ...] = option((), "names of layers to leave alone, with * for any characters")
    multiple: int | None = option(None, "ranks are multiples of this (default: 1; for latency, the vectors')")
    data: str = option(DATA, "the calibration data, as named by --data NAME=PATH")
    images: int = option(256, "use at most so many images of it")

    def __post_init__(self) -> None:
        goals = self._goals()
        for name in SHARES.keys() & goals.keys() | {"energy"} & goals.keys():
            if not 0 < goals[name] < 1:
                raise UsageError(f"{name} must be between 0 and 1, not {goals[name]:g}", help=f"it is {_MEANING[name]}")
        if len(goals) > 1:
            raise UsageError(f"{' and '.join(goals)} are both given", help="give one goal")
        for name in ("rank", "multiple", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.method != "auto":
            METHODS.parse(self.method)

    def _goals(self) -> dict[str, float]:
        given = {name: getattr(self, name) for name in _MEANING if getattr(self, name) is not None}
        return given | ({"vbmf": 1.0} if self.vbmf else {})

    @property
    def _methods(self) -> list[Factorisation]:
        return [METHODS.parse(name) for name in (METHODS.names() if self.method == "auto" else [self.method])]

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        if not self._goals():
            raise UsageError(
                "factor-low-rank was not told how small the model shall become",
                help="give a goal, for example factor-low-rank{macs=0.5} to halve the multiply-accumulates",
            )
        outcome, before = Outcome(), model.copy(share_tensors=True)
        found = self._layers(model, outcome)
        data = self._calibration(model, workspace)
        self._check_rank(found)
        study = Study(model, found, data)
        times = None if self.latency is None else KernelTimes(workspace.target_stopwatch(), model)
        weighed = {
            layer: self._options(layer, study, workspace, times, outcome)
            for layer in workspace.progress.track(found, "factoring layers", len(found))
        }
        chosen = self._choose(model, weighed, times, outcome)
        carry_out(model, chosen)
        for layer in chosen:
            outcome.change(layer.node)
        if data is not None and chosen:
            used = fit_layers(before, model, _targets(before, chosen), data)
            outcome.notes.append(f"the last factor of each layer fitted on {used.different} images")
        tell(before, model, weighed, chosen, outcome)
        if data is None:
            outcome.notes.append("by weights alone; a few images, --data calib=PATH, would keep more accuracy")
        return outcome

    def _calibration(self, model: Model, workspace: Workspace) -> Calibration | None:
        """Read the data set if there is one; `UsageError` if one was named that is not there."""
        if self.data == DATA and DATA not in workspace.data:
            return None
        return Calibration.read(model, workspace, self.data, self.images)

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

    def _check_rank(self, found: Sequence[Layer]) -> None:
        """Raise `UsageError` for a rank that no layer has."""
        if self.rank is None or not found:
            return
        kernels = [(method, layer.kernel) for layer in found for method in self._methods]
        most = max(min(m.full_ranks(kernel)) for m, kernel in kernels if m.refusal(kernel) is None)
        if self.rank > most:
            raise UsageError(f"no layer has a rank of {self.rank}: the largest is {most}")

    def _refusal(self, layer: Layer) -> str | None:
        """Why no method takes a layer; None if one does."""
        reasons = [method.refusal(layer.kernel) for method in self._methods]
        if None in reasons:
            return None
        return reasons[0] if len(reasons) == 1 else "no method takes it"

    def _options(
        self, layer: Layer, study: Study, workspace: Workspace, times: KernelTimes | None, outcome: Outcome
    ) -> list[Option]:
        """The ways to write a layer that cost less than it, judged by the model's outputs."""
        cost = COSTS.get(next(iter(self._goals())), MACS)
        today, found, failed = cost.of_layer(layer), list[Option](), list[str]()
        for method in self._methods:
            if method.refusal(layer.kernel):
                continue
            parts = Parts.of(method, layer.kernel, study.known[layer])
            for ranks in self._ranks(parts, layer, cost, workspace):
                if cost.of_kernels(layer, method.outline(layer.kernel, ranks)) >= today:
                    continue
                made = factor(parts, layer, ranks, cost)
                if isinstance(made, str):
                    failed.append(made)
                else:
                    found.append(study.fitted(layer, made))
        if failed and not found:
            outcome.skip(layer.node, failed[0])
        if times is not None:
            found = timed(layer, nearest_of_each_level(found, today, _NEAR), times)
        elif self._is_budget:
            found = nearest_of_each_level(found, today)
        else:
            found = sorted(found, key=lambda one: one.own * one.cost)[:1]
        return [study.judged(layer, one) for one in found]

    @property
    def _is_budget(self) -> bool:
        return not SHARES.keys().isdisjoint(self._goals())

    def _ranks(self, parts: Parts, layer: Layer, cost: Cost, workspace: Workspace) -> list[Ranks]:
        full = parts.method.full_ranks(layer.kernel)
        if self._is_budget:
            liked = 1 if self.latency is None else workspace.target_stopwatch().channel_multiple
            return ranks_by_cost(parts, layer, cost, self.multiple or liked)
        if self.energy is not None:
            return [by_energy(parts.spectra, self.energy)]
        if self.vbmf:
            return [ranks_above_noise(Parts.of(parts.method, layer.kernel, Statistics()))]
        assert self.rank is not None
        return [tuple(self.rank for _ in full)] if all(self.rank <= most for most in full) else []

    def _choose(
        self, model: Model, weighed: Mapping[Layer, Sequence[Option]], times: KernelTimes | None, outcome: Outcome
    ) -> dict[Layer, Option]:
        if not self._is_budget:
            return {layer: found[0] for layer, found in weighed.items() if found}
        ((kind, share),) = self._goals().items()
        if times is not None:
            return by_latency(model, weighed, share, times, outcome)
        cost = COSTS[kind]
        today = {layer: cost.of_layer(layer) for layer in weighed}
        full = cost.of_model(model)
        return within(weighed, today, full, share, cost.name)


def _targets(before: Model, chosen: Mapping[Layer, Option]) -> dict[Node, Target]:
    """The last factors that can be fitted, each with what its layer gave."""
    known = {node.name: node for node in before.module.graph.nodes}
    return {layer.node: Target(known[layer.node.name]) for layer in chosen if check_layer(layer.node) is None}

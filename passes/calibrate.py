"""Choose the quantisation parameters on calibration data, and say how far the outputs moved.

Every place that `insert-fake-quant` made is watched by a range estimator while the data runs through the floating-point
model, one batch in memory at a time; places of one group are watched as one. Weights get theirs from their values.
Then a part of the data runs through the quantised model too: a network that lost what it knew is reported, for such a
loss shows in nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.fx import Node

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import arguments, calls, origin, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.measure.comparison.loss import OutputLoss, compare_all
from lvc.compiler.measure.comparison.verdict import REMEDY, note_errors
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.compute import Values
from lvc.compiler.running.images import MOST_IMAGES, stream
from lvc.compiler.running.run import Look, Run
from lvc.passes.analysis.variety import Variety
from lvc.passes.quantisation.bias_overflow import prevent_bias_overflow
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import RANGE_ESTIMATORS, JoiningWatch, RangeEstimator, Watch
from lvc.passes.quantisation.weight_codebook import replace_by_codebook, weight_codebook
from lvc.passes.quantisation.weight_parameters import learnable_parameters, weight_parameters

_MOST_COMPARED_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Calibrate(Pass):
    """Choose the quantisation parameters on calibration data, and measure what the outputs lose."""

    name: ClassVar[str] = "calibrate"
    effect: ClassVar[Effect] = Effect.LOSSY
    remedy: ClassVar[str] = REMEDY
    is_divided: ClassVar[bool] = True

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    estimator: str = option("mse", "what chooses the range of an activation, such as percentile{p=99.9}")
    weights: Literal["mse", "min-max", "lsq"] = option(
        "mse", "what chooses the range of a weight of uniform steps (lsq: what its authors begin to learn from)"
    )
    images: int = option(MOST_IMAGES, "read at most so many images")
    compare: int = option(64, "compare the outputs on at most so many of them; 0 for none")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")
        if self.compare < 0:
            raise UsageError(f"compare must not be negative, and is {self.compare}")
        RANGE_ESTIMATORS.parse(self.estimator)

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset({self.data})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        places = list(calls(model.module.graph, UNCALIBRATED))
        if not places:
            outcome.notes.append("nothing waits to be calibrated; put insert-fake-quant before this pass")
            return outcome
        watched = _Watched(model, RANGE_ESTIMATORS.parse(self.estimator))
        ranks = workspace.ranks if watched.can_join else ALONE
        kept = _Kept(0 if ranks.follows else self.compare)
        variety = Variety()
        images = stream(model, workspace, self.data, self.images, "calibrating", ranks=ranks, first=self.compare)
        for batch in images:
            variety.add(batch)
            kept.add(batch, watched.run.each(batch))
        if ranks.count > 1:
            watched.join(ranks)
            variety.join(ranks)
        for place in places:
            self.decide(model, place, watched, outcome)
        prevent_bias_overflow(model.module)
        model.module.recompile()
        note_errors(kept.errors(model), kept.images, outcome)
        if warning := variety.warning():
            outcome.notes.append(warning)
        return outcome

    def decide(self, model: Model, place: Node, watched: _Watched, outcome: Outcome) -> None:
        scheme = QuantisationScheme.of(place)
        stored = tensor(model.module, place.args[0])
        outcome.change(place)
        if stored is not None and scheme.has_codebook:
            replace_by_codebook(model.module, place, weight_codebook(scheme, stored))
            return
        if stored is not None and self.weights == "lsq":
            parameters = learnable_parameters(scheme, stored)
        elif stored is not None:
            parameters = weight_parameters(scheme, stored, least_error=self.weights == "mse")
        else:
            low, high = watched.watches[place].range()
            parameters = scheme.parameters(torch.tensor(low), torch.tensor(high))
        parameters.replace(model.module, place)


class _Watched:
    """Shows the values of the floating-point model to the range estimators, image after image."""

    def __init__(self, model: Model, estimator: RangeEstimator) -> None:
        self.watches: dict[Node, Watch] = {}
        groups: dict[str, _Group] = {}
        looks: dict[Node, Look] = {}
        for place in calls(model.module.graph, UNCALIBRATED):
            if tensor(model.module, place.args[0]) is None:
                fresh = _Group(estimator.watch(QuantisationScheme.of(place)))
                name = arguments(place)["group"]
                group = groups.setdefault(name, fresh) if name else fresh
                self.watches[place] = group.watch
                looks[place] = group.look(place)
        self.run = Run(model, looks, dict.fromkeys(looks, _unchanged), frozen=True)

    @property
    def can_join(self) -> bool:
        """Whether what several processes saw of the data can be put together."""
        return all(isinstance(watch, JoiningWatch) for watch in self.watches.values())

    def join(self, ranks: Ranks) -> None:
        """Take in what all processes saw."""
        for watch in dict.fromkeys(self.watches.values()):
            assert isinstance(watch, JoiningWatch)
            watch.join(ranks)


class _Group:
    """Places that are watched as one: who watches them sees the values of an image at all places, then the next."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._places: list[Node] = []
        self._waiting: list[Sequence[torch.Tensor]] = []

    def look(self, place: Node) -> Look:
        self._places.append(place)

        def see(parts: Sequence[torch.Tensor]) -> None:
            for values in parts:
                _check_finite(place, values)
            self._waiting.append(parts)
            if len(self._waiting) == len(self._places):
                for values in itertools.chain(*zip(*self._waiting, strict=True)):
                    self.watch.see(values)
                self._waiting = []

        return see


def _unchanged(place: Node, values: Values, _: object) -> torch.Tensor:
    """What a place gives that waits for its parameters, without the copy that its operator makes."""
    return values[place.all_input_nodes[0]]


def _check_finite(place: Node, values: torch.Tensor) -> None:
    if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
        raise CompileError(
            f"'{place.all_input_nodes[0].name}' is NaN or infinite on the calibration data",
            where=origin(place),
            why="they have no range",
            help="the floating-point model fails on this data; check its preprocessing with 'lvc eval'",
        )


class _Kept:
    """The first images and what the floating-point model made of them, as far as they are to be compared."""

    def __init__(self, images: int) -> None:
        self.most = images
        self.bytes = 0
        self.images = 0
        self.batches: list[torch.Tensor] = []
        self.outputs: list[tuple[torch.Tensor, ...]] = []

    def add(self, batch: torch.Tensor, outputs: Sequence[tuple[torch.Tensor, ...]]) -> None:
        parts = batch.chunk(len(outputs))
        count = 0
        for part, made in zip(parts, outputs, strict=True):
            self.bytes += part.nbytes + sum(output.nbytes for output in made)
            if self.images >= self.most or (self.outputs and self.bytes > _MOST_COMPARED_BYTES):
                break
            self.outputs.append(made)
            self.images += len(part)
            count += len(part)
        if count:
            self.batches.append(batch[:count])

    def errors(self, model: Model) -> list[OutputLoss]:
        """Compare what the model gives now with what was kept, output by output."""
        if not self.batches:
            return []
        run = Run(model, frozen=True)
        return compare_all(model, self.outputs, [made for batch in self.batches for made in run.each(batch)])

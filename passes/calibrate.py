"""Choose the quantisation parameters on calibration data, and say how far the outputs moved.

Every place that `insert-fake-quant` made is watched by a range estimator while the data runs through the floating-point
model, one batch in memory at a time; places of one group are watched as one. Weights get theirs from their values.
Then a part of the data runs through the quantised model too: a network that lost what it knew is reported, for such a
loss shows in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.fx import Interpreter, Node

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import arguments, calls, origin, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.measure.comparison.loss import OutputLoss, compare_all
from lvc.compiler.measure.comparison.verdict import REMEDY, note_errors
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.calibration import MOST_IMAGES, stream
from lvc.passes.analysis.frozen import Frozen
from lvc.passes.analysis.variety import Variety
from lvc.passes.quantisation.bias_overflow import prevent_bias_overflow
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import RANGE_ESTIMATORS, RangeEstimator, Watch
from lvc.passes.quantisation.weight_codebook import replace_by_codebook, weight_codebook
from lvc.passes.quantisation.weight_parameters import weight_parameters

_MOST_COMPARED_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Calibrate(Pass):
    """Choose the quantisation parameters on calibration data, and measure what the outputs lose."""

    name: ClassVar[str] = "calibrate"
    effect: ClassVar[Effect] = Effect.LOSSY
    remedy: ClassVar[str] = REMEDY

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    estimator: str = option("mse", "what chooses the range of an activation, such as percentile{p=99.9}")
    weights: Literal["mse", "min-max"] = option("mse", "what chooses the range of a weight of uniform steps")
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
        kept = _Kept(self.compare)
        variety = Variety()
        for batch in stream(model, workspace, self.data, self.images, "calibrating"):
            variety.add(batch)
            kept.add(batch, watched.run(batch))
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
        if stored is not None:
            parameters = weight_parameters(scheme, stored, least_error=self.weights == "mse")
        else:
            low, high = watched.watches[place].range()
            parameters = scheme.parameters(torch.tensor(low), torch.tensor(high))
        parameters.replace(model.module, place)


class _Watched(Interpreter):
    """Runs the floating-point model and shows its values to the range estimators."""

    def __init__(self, model: Model, estimator: RangeEstimator) -> None:
        super().__init__(model.module)
        self.watches: dict[Node, Watch] = {}
        groups: dict[str, Watch] = {}
        for place in calls(model.module.graph, UNCALIBRATED):
            if tensor(model.module, place.args[0]) is None:
                fresh = estimator.watch(QuantisationScheme.of(place))
                group = arguments(place)["group"]
                self.watches[place] = groups.setdefault(group, fresh) if group else fresh

    def run(self, *inputs: Any, **_: Any) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            outputs: tuple[torch.Tensor, ...] = super().run(*inputs)
        return outputs

    def run_node(self, n: Node) -> Any:
        if n not in self.watches:
            return super().run_node(n)
        values = self.env[n.all_input_nodes[0]]
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            raise CompileError(
                f"'{n.all_input_nodes[0].name}' is NaN or infinite on the calibration data",
                where=origin(n),
                why="they have no range",
                help="the floating-point model fails on this data; check its preprocessing with 'lvc eval'",
            )
        self.watches[n].see(values)
        return values


class _Kept:
    """The first batches and what the floating-point model made of them, as far as they are to be compared."""

    def __init__(self, images: int) -> None:
        self.most = images
        self.bytes = 0
        self.batches: list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = []

    @property
    def images(self) -> int:
        return sum(len(batch) for batch, _ in self.batches)

    def add(self, batch: torch.Tensor, outputs: tuple[torch.Tensor, ...]) -> None:
        self.bytes += batch.nbytes + sum(output.nbytes for output in outputs)
        if self.images < self.most and (not self.batches or self.bytes <= _MOST_COMPARED_BYTES):
            self.batches.append((batch, outputs))

    def errors(self, model: Model) -> list[OutputLoss]:
        """Compare what the model gives now with what was kept, output by output."""
        if not self.batches:
            return []
        frozen = Frozen(model)
        found = [frozen(batch) for batch, _ in self.batches]
        return compare_all(model.output_names, [outputs for _, outputs in self.batches], found)

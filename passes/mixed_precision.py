"""Choose for each layer how many bits its weights get, by what each layer's weights in few bits do to the outputs.

Each layer alone gets its weights in 8 and in 4 bits while all others stay as they are, and the outputs on the data are
compared with those of the whole model: the relative entropy of the class probabilities, or the squared error where
there are none. A path from all layers in floating point to all in the fewest bits then takes the cheapest steps first,
and the budget says where on it to stop. What was chosen is measured together at the end, for costs do not quite add up.

Behind `insert-fake-quant` the bits of what waits to be calibrated are set, for integer kernels; otherwise
weights are stored in few bits as `quantise-weights` does. Under a budget of latency the question is which layers run in
integers at all; fake quantisation is then placed for these, so it stands in the place of `insert-fake-quant`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import arguments, calls, erase_dead, origin, replace, set_argument, spec, tensor
from lvc.compiler.ir.layers import INTEGER_LAYERS, MATRIX_LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.batches import images_held
from lvc.compiler.running.images import stream
from lvc.compiler.running.rerun import Rerun
from lvc.compiler.text import percent, si, title
from lvc.passes.analysis.patterns import left_out
from lvc.passes.budget.language import out_of_reach
from lvc.passes.quantisation.already import refuse_calibrated, refuse_quantised
from lvc.passes.quantisation.bit_choice import FLOAT, Assignment, Choice, Choices, Point, filled, path
from lvc.passes.quantisation.divergence import changed_choices, divergence
from lvc.passes.quantisation.integer_choice import INTEGER, Latency, integer_costs, seconds_table, until_fast
from lvc.passes.quantisation.placement import refused_layers
from lvc.passes.quantisation.weight_codes import CodedWeights, refuse_codes
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS, Coded


@dataclass(frozen=True)
class Weights:
    """A layer whose weights may get fewer bits; ``forms`` are they by bits, and ``place`` waits for calibration."""

    layer: Node
    node: Node
    place: Node | None
    forms: Mapping[int, Coded]

    @property
    def name(self) -> str:
        return self.layer.name

    @cached_property
    def decoded(self) -> dict[int, torch.Tensor]:
        """What the forms stand for."""
        return {bits: form.decoded() for bits, form in self.forms.items()}

    def bytes(self, bits: int) -> int:
        return spec(self.node).bytes if bits == FLOAT else self.forms[bits].bytes


@dataclass(frozen=True, kw_only=True)
class MixedPrecision(Pass):
    """Choose 8, 4 or 32 bits for the weights of each layer under a budget, by measured sensitivity of the outputs."""

    name: ClassVar[str] = "mixed-precision"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    quantises: ClassVar[bool] = True

    bytes: float | None = option(None, "share of today's bytes of stored tensors that may be left")
    drop: float | None = option(
        None, "share of first choices that may change; for a model without class scores the relative squared error"
    )
    latency: float | None = option(
        None, "share of today's latency that may be left, measured on the target; in the place of insert-fake-quant"
    )
    bits: tuple[int, ...] = option(
        (8, 4), "bits that a weight may get, and it may always stay in floating point; with latency= the first counts"
    )
    format: str = option("linear", "what weights can be, unless insert-fake-quant said it; see quantise-weights")
    only: tuple[str, ...] = option((), "layers to choose for, by patterns of names or origins; all without it")
    skip: tuple[str, ...] = option((), "layers to leave in floating point, by patterns of names or origins")
    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(16, "measure each layer on at most so many images")
    checked: int = option(128, "measure what was chosen on at most so many images")

    def __post_init__(self) -> None:
        given = [name for name in ("bytes", "drop", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} are both given", help="give one budget")
        if self.latency is not None and not 0 < self.latency < 1:
            raise UsageError(f"latency must be a share between 0 and 1, not {self.latency}")
        if self.bytes is not None and not 0 < self.bytes < 1:
            raise UsageError(f"bytes must be a share between 0 and 1, not {self.bytes}")
        if self.drop is not None and not 0 <= self.drop < 1:
            raise UsageError(f"drop must be a share from 0 on and below 1, not {self.drop}")
        known = {2, 4, 8} if self.latency is None else {4, 7, 8}
        if not self.bits or not set(self.bits) <= known:
            listed = ", ".join(map(str, sorted(known, reverse=True)))
            raise UsageError(f"bits must be some of {listed}", help="for example bits=8,4")
        if self.images < 1 or self.checked < 1:
            raise UsageError("images and checked must be at least 1")
        WEIGHT_FORMATS.parse(self.format)

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset({self.data})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        refuse_quantised(model.module.graph)
        if self.latency is not None:
            self.until_fast(model, workspace, self.latency, outcome)
            return outcome
        if self.bytes is None and self.drop is None:
            raise UsageError("mixed-precision has no budget", help="give bytes=, drop= or latency=, as in {bytes=0.2}")
        layers = list(self.weights(model, outcome))
        if not layers:
            outcome.notes.append("no layer has weights that can get fewer bits")
            return outcome
        costs = self.costs(model, layers, workspace)
        choices = {
            w.name: [Choice(bits, w.bytes(bits), costs[w.name, bits]) for bits in (FLOAT, *self.bits)] for w in layers
        }
        trial = Trial(model, layers, self.read(model, workspace, self.checked, images_held(model)))
        rest = model.bytes - sum(w.bytes(FLOAT) for w in layers)
        point = self.under_bytes(choices, rest, model.bytes) if self.bytes else self.under_drop(choices, trial)
        report(layers, costs, point, outcome)
        divergence, changed = trial.measure(point.bits)
        before, coded = model.bytes, CodedWeights(model.module)
        for weights in layers:
            if point.bits[weights.name] != FLOAT:
                outcome.change(weights.layer)
            settle(weights, point.bits[weights.name], coded)
        erase_dead(model.module)
        after = min(model.bytes, rest + point.bytes)  # with layers that share tables, or simulated as yet
        outcome.notes.append(
            f"{_counted(point.bits)}; stored tensors {si(before, 'B')} -> {si(after, 'B')} ({after / before:.3f}x)"
        )
        outcome.notes.append(
            f"the outputs diverge by {divergence:.3g}, {point.cost:.3g} was the sum over layers; "
            f"{percent(changed, 2)} of the first choices change over {trial.images} images"
        )
        return outcome

    def weights(self, model: Model, outcome: Outcome) -> Iterator[Weights]:
        """Yield the layers whose weights may get fewer bits."""
        layers = list(calls(model.module.graph, *MATRIX_LAYERS))
        left = left_out(layers, self.only, self.skip)
        for layer in layers:
            node, format, group = arguments(layer)["weight"], self.format, 0
            place = node if node.target is UNCALIBRATED else None
            if place is not None:
                node, format, group = (arguments(place)[name] for name in ("self", "scale", "channels"))
            if reason := left.get(layer) or refuse_codes(model.module, node, group):
                outcome.skip(layer, reason)
            else:
                weight = tensor(model.module, node)
                assert weight is not None
                coded = WEIGHT_FORMATS.parse(format)
                yield Weights(layer, node, place, {bits: coded.encode(weight, bits, group) for bits in self.bits})

    def read(self, model: Model, workspace: Workspace, images: int, at_once: int) -> list[torch.Tensor]:
        """Read images in batches of at most so many."""
        batches = stream(model, workspace, self.data, images, "reading images")
        return [part for batch in batches for part in torch.split(batch, at_once)]

    def costs(self, model: Model, layers: Sequence[Weights], workspace: Workspace) -> dict[tuple[str, int], float]:
        """Return by layer and bits how far the outputs move when it alone has its weights in so many bits."""
        rerun = Rerun(model)
        total = {(w.name, bits): 0.0 for w in layers for bits in (FLOAT, *self.bits)}
        batches = self.read(model, workspace, self.images, images_held(model))
        count = 0
        for batch in workspace.progress.track(batches, "measuring layers", len(batches)):
            values = rerun.run(batch)
            wanted = rerun.outputs(values)
            count += len(wanted)
            for weights in layers:
                for bits in self.bits:
                    found = rerun.again(values, weights.node, weights.decoded[bits])
                    total[weights.name, bits] += sum(map(divergence, wanted, found))
        return {key: moved / count for key, moved in total.items()}

    def until_fast(self, model: Model, workspace: Workspace, share: float, outcome: Outcome) -> None:
        """Quantise as many layers as make the model fast enough."""
        graph = model.module.graph
        refuse_calibrated(graph)
        if any(calls(graph, UNCALIBRATED)):
            raise UsageError(
                "latency= places fake quantisation, and some stands already", help="leave out insert-fake-quant"
            )
        reasons = refused_layers(graph, self.only, self.skip)
        for layer, reason in reasons.items():
            outcome.skip(layer, reason)
        layers = [n for n in calls(graph, *INTEGER_LAYERS) if n not in reasons]
        if not layers:
            outcome.notes.append("no layer can run in integers")
            return
        race = Latency(model, layers, self.bits[0], workspace, workspace.target_stopwatch())
        inputs = self.read(model, workspace, self.images, model.inputs[0].spec.shape[0])
        choices, total = race.choices(integer_costs(model, layers, inputs, self.bits[0]))
        found = until_fast(choices, total, share, race.measure)
        race.place(model, found.point.bits)
        for layer in layers:
            if found.point.bits[layer.name] == INTEGER:
                outcome.change(layer)
        outcome.notes.append(
            f"{len(outcome.changed)} of {len(layers)} layers run in integers; {found.measured:.3f} of today's latency "
            f"on {race.stopwatch.name} is left, {found.estimated:.3f} was the sum over layers, {share:g} the budget"
        )
        outcome.tables.append(seconds_table(layers, choices, found.point))

    def under_bytes(self, choices: Choices, rest: int, before: int) -> Point:
        """Return the best choice for every layer that is found within so many bytes."""
        assert self.bytes is not None
        most, points = int(self.bytes * before) - rest, path(choices)
        for point in points:
            if point.bytes <= most:
                return filled(choices, point, most)
        least = (rest + points[-1].bytes) / before
        why = f"every layer then has {min(self.bits)} bits, and what is no weight of a layer stays"
        raise out_of_reach(("bytes", self.bytes), least, "bytes", why, ["or let bits= go lower"])

    def under_drop(self, choices: Choices, trial: Trial) -> Point:
        """Return the furthest point of the path that changes few enough choices, by bisection."""
        assert self.drop is not None
        points = path(choices)
        fine, beyond = 0, len(points)
        while beyond - fine > 1:
            middle = (fine + beyond) // 2
            _, changed = trial.measure(points[middle].bits)
            fine, beyond = (middle, beyond) if changed <= self.drop else (fine, middle)
        return points[fine]


class Trial:
    """The whole model over some images, to measure assignments against."""

    def __init__(self, model: Model, layers: Sequence[Weights], batches: Sequence[torch.Tensor]) -> None:
        self.layers = layers
        self.images = sum(map(len, batches))
        self._rerun = Rerun(model)
        self._batches = batches
        self._wanted = self._outputs({})

    def measure(self, bits: Assignment) -> tuple[float, float]:
        """Return the mean divergence of the outputs, and the share of first choices that change."""
        changed = {w.node: w.decoded[bits[w.name]] for w in self.layers if bits[w.name] != FLOAT}
        pairs = list(zip(self._wanted, self._outputs(changed), strict=True))
        figures = [(divergence(*pair), changed_choices(*pair)) for pair in pairs]
        mean, share = (sum(column) / len(pairs) for column in zip(*figures, strict=True))
        return mean, share

    def _outputs(self, changed: Mapping[Node, torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
        return [part for batch in self._batches for part in self._rerun.outputs(self._rerun.run(batch, changed))]


def settle(weights: Weights, bits: int, coded: CodedWeights) -> None:
    """Give a layer's weights so many bits, as fake quantisation that waits to be calibrated or as codes."""
    if weights.place is None:
        if bits != FLOAT:
            coded.read(weights.layer, weights.forms[bits])
    elif bits == FLOAT:
        replace(weights.place, weights.node)
    else:
        set_argument(weights.place, "bits", bits)


def report(layers: Sequence[Weights], costs: Mapping[tuple[str, int], float], point: Point, outcome: Outcome) -> None:
    """Show what each layer costs at each number of bits, and what it got."""
    tried = sorted({bits for _, bits in costs} - {FLOAT}, reverse=True)
    headers = ("layer", "weights", *(f"divergence at {bits} bits" for bits in tried), "chosen")
    rows: tuple[tuple[str | int | float, ...], ...] = tuple(
        (
            title(origin(w.layer)),
            spec(w.node).elements,
            *(float(f"{costs[w.name, bits]:.3g}") for bits in tried),
            "float" if point.bits[w.name] == FLOAT else f"{point.bits[w.name]} bits",
        )
        for w in layers
    )
    outcome.tables.append(Table("what each layer costs", headers, rows))


def _counted(bits: Assignment) -> str:
    counts = Counter(bits.values())
    return ", ".join(f"{counts[b]} in {'float' if b == FLOAT else f'{b} bits'}" for b in sorted(counts, reverse=True))

"""Place fake quantisation where layers shall run in integers; `calibrate` chooses the quantisation parameters.

What runs in integers, and what is quantised for it, is decided in `lvc.passes.quantisation`. Every place gets
`lvc::uncalibrated`, which changes nothing until it is calibrated, so a pipeline may go on changing weights in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.fx import Graph, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, op_name, origin
from lvc.compiler.ir.layers import FLOATING
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted, percent, si, title
from lvc.passes.quantisation.already import refuse_calibrated, refuse_quantised
from lvc.passes.quantisation.insertion import Schemes, insert_places
from lvc.passes.quantisation.placement import Placement, refused_layers
from lvc.passes.quantisation.quantisation_parameters import STEPS
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS


@dataclass(frozen=True, kw_only=True)
class InsertFakeQuant(Pass):
    """Place fake quantisation on weights and activations, so that layers can run in integers."""

    name: ClassVar[str] = "insert-fake-quant"
    effect: ClassVar[Effect] = Effect.EXACT
    quantises: ClassVar[bool] = True
    explains_integers: ClassVar[bool] = True

    weight_bits: int = option(8, "bits of a weight, 2 to 8")
    activation_bits: int = option(8, "bits of an activation, 2 to 8")
    outer_bits: int = option(0, "bits of both in the first and the last layers, where few cost most; 0 for the same")
    weight_symmetric: bool = option(True, "quantise weights symmetrically about zero")
    activation_symmetric: bool = option(False, "quantise activations symmetrically about zero")
    per_channel: bool = option(True, "give each output channel of a weight a scale of its own")
    scale: Literal["linear", "power-of-two"] = option("linear", "what a scale may be")
    weight_format: str = option("linear", "what weights can be: linear, power-of-two, log or codebook")
    group: int = option(0, "so many input channels of an output channel get a scale of their own; 0 for all of them")
    attention: bool = option(True, "quantise the factors of products of two computed matrices too")
    only: tuple[str, ...] = option((), "layers to quantise, by patterns of names or origins; all if none is given")
    skip: tuple[str, ...] = option((), "layers to leave in floating point, by patterns of names or origins")

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise UsageError(f"{name} must be 2 to 8, not {getattr(self, name)}")
        if self.outer_bits and not 2 <= self.outer_bits <= 8:
            raise UsageError(f"outer_bits must be 2 to 8, or 0, not {self.outer_bits}")
        WEIGHT_FORMATS.parse(self.weight_format)
        if self.group < 0:
            raise UsageError(f"group must not be negative, and is {self.group}")
        if self.group and not self.per_channel:
            raise UsageError("group= asks for many scales a channel, and per_channel=false for one for all of them")
        if not self.weight_symmetric and (self.group or self.weight_steps not in STEPS):
            what = f"group={self.group}" if self.group else f"weight_format={self.weight_format}"
            raise UsageError(f"{what} has no form with weight_symmetric=false", help="leave one of them out")

    @property
    def schemes(self) -> Schemes:
        return Schemes(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            weight_symmetric=self.weight_symmetric,
            activation_symmetric=self.activation_symmetric,
            per_channel=self.per_channel,
            scale=self.scale,
            weight_steps=self.weight_steps,
            group=self.group,
            outer_bits=self.outer_bits,
        )

    @property
    def weight_steps(self) -> str:
        """What a weight can be, where uniform steps are those that ``scale`` allows."""
        return self.scale if self.weight_format == "linear" else self.weight_format

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        graph = model.module.graph
        refuse_calibrated(graph)
        refuse_quantised(graph)
        left = refused_layers(graph, self.only, self.skip)
        if not self.attention:
            left = dict.fromkeys(calls(graph, aten.matmul.default), "attention=false leaves it out") | left
        placement = Placement(graph, frozenset(set(calls(graph, *FLOATING)) - set(left)))
        report(graph, placement, left, outcome)
        for place in insert_places(graph, placement, self.schemes):
            outcome.change(place)
        if self.group:
            self.report_groups(graph, outcome)
        return outcome

    def report_groups(self, graph: Graph, outcome: Outcome) -> None:
        """Say how many weights cannot be split into groups."""
        weights = [place for place in calls(graph, UNCALIBRATED) if arguments(place)["axis"] == 0]
        odd = sum(place.name in outcome.changed and not arguments(place)["channels"] for place in weights)
        if odd:
            outcome.notes.append(
                f"{odd} of {len(weights)} weights get one scale for each output channel, "
                f"for their input channels are no multiple of group={self.group}"
            )


def report(graph: Graph, placement: Placement, left: Mapping[Node, str], outcome: Outcome) -> None:
    """Say how much of the work runs in integers, and why the rest does not."""
    layers = list(calls(graph, *FLOATING))
    for layer, reason in left.items():
        outcome.skip(layer, reason)
    work, total = sum(map(macs, placement.layers)), sum(map(macs, layers))
    if layers:
        share = percent(work / total) if total else "none"
        placed = f"{len(placement.layers)} of {counted(len(layers), 'layer')}"
        outcome.notes.append(f"{share} of {si(total, 'MACs')} run in integers: {placed}")
    else:
        outcome.notes.append("there is no layer to quantise")
    if count := len(list(calls(graph, aten.batch_norm.default))):
        outcome.notes.append(
            f"{counted(count, 'batch normalisation')} left in floating point, where fold-batch-norm folds none"
        )
    rows = tuple((title(origin(node)), op_name(node), macs(node), left.get(node, "integer")) for node in layers)
    outcome.tables.append(Table("coverage", ("layer", "operator", "MACs", "runs in"), rows))

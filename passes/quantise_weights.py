"""Store the weights of layers in few bits; they are expanded when the model is loaded, and nothing else changes.

The file gets smaller, and all arithmetic stays floating-point: memory in use and time are those of the model as it was.
No data is needed. Run it at the end of a pipeline, behind `O2`: passes that look at weights see none afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import arguments, calls, op_name, origin, tensor
from lvc.compiler.ir.layers import MATRIX_LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.coded_weights import BITS
from lvc.compiler.measure.comparison.signal import sqnr
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import si, title
from lvc.passes.analysis.patterns import left_out
from lvc.passes.quantisation.already import refuse_quantised
from lvc.passes.quantisation.weight_codes import CodedWeights, refuse_codes
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS, Coded


@dataclass(frozen=True, kw_only=True)
class QuantiseWeights(Pass):
    """Store the weights of convolutions and linear layers in 8, 4 or 2 bits; all arithmetic stays floating-point."""

    name: ClassVar[str] = "quantise-weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    quantises: ClassVar[bool] = True

    bits: int = option(8, "bits of a weight: 8, 4 or 2")
    format: str = option("linear", "what weights can be: linear, power-of-two, log or codebook")
    group: int = option(0, "so many input channels of an output channel get a scale of their own; 0 for all of them")
    only: tuple[str, ...] = option((), "layers to store in few bits, by patterns of names or origins; all without it")
    skip: tuple[str, ...] = option((), "layers to leave as they are, by patterns of names or origins")

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UsageError(f"bits must be 8, 4 or 2, not {self.bits}")
        if self.group < 0:
            raise UsageError(f"group must not be negative, and is {self.group}")
        WEIGHT_FORMATS.parse(self.format)

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome, format = Outcome(), WEIGHT_FORMATS.parse(self.format)
        refuse_quantised(model.module.graph)
        layers = list(calls(model.module.graph, *MATRIX_LAYERS))
        left = left_out(layers, self.only, self.skip)
        before, rows = model.bytes, list[tuple[str | int | float, ...]]()
        coded = dict[Node, tuple[torch.Tensor, Coded]]()
        for layer in workspace.progress.track(layers, "coding weights", len(layers)):
            if reason := left.get(layer) or refuse_codes(model.module, arguments(layer)["weight"], self.group):
                outcome.skip(layer, reason)
                continue
            weight = tensor(model.module, arguments(layer)["weight"])
            assert weight is not None
            coded[layer] = weight, format.encode(weight, self.bits, self.group)
        stored, saved = CodedWeights(model.module), savings(coded.values())
        for layer, (weight, form) in coded.items():
            if form.own_bytes >= weight.nbytes or saved[form.table] <= 0:
                outcome.skip(layer, f"its {weight.nbytes} bytes would become {form.bytes}, with scales and a table")
                continue
            rows.append(row(layer, weight, form, stored.read(layer, form)))
            outcome.change(layer)
        report(model, before, rows, outcome)
        return outcome


def savings(coded: Iterable[tuple[torch.Tensor, Coded]]) -> dict[tuple[float, ...], int]:
    """The bytes that go with each table of values, which all weights that need it share."""
    saved: dict[tuple[float, ...], int] = {}
    for weight, form in coded:
        saved.setdefault(form.table, -form.values.nbytes)
        saved[form.table] += max(0, weight.nbytes - form.own_bytes)
    return saved


def row(layer: Node, weight: torch.Tensor, form: Coded, bytes: int) -> tuple[str | int | float, ...]:
    noise = sqnr(weight.detach(), form.decoded() - weight.detach())
    return title(origin(layer)), op_name(layer), weight.numel(), bytes, round(noise, 1)


def report(model: Model, before: int, rows: list[tuple[str | int | float, ...]], outcome: Outcome) -> None:
    """Say what became of the bytes; the SQNR of each layer's weights is for those who ask."""
    if not rows:
        outcome.notes.append("no weight could be stored in fewer bits")
        return
    after = model.bytes
    outcome.notes.append(
        f"{len(rows)} weights in few bits; all stored tensors {si(before, 'B')} -> {si(after, 'B')} "
        f"({after / before:.3f}x); they are expanded when the model is loaded"
    )
    headers = ("layer", "operator", "weights", "bytes", "SQNR, dB")
    outcome.tables.append(Table("weights in few bits", headers, tuple(rows)))

"""Compute linear layers in integers with scales that follow the data, so that no calibration is needed.

Each row of the input gets the scale ``s[i] = max |x[i]| / 127`` as the model runs, and the weights have one scale
``t[o]`` for each output channel::

    q = round(x / s)      y[i, o] = (sum_k q[i, k] * v[o, k]) * t[o] * s[i] + bias[o]

The sums are exact in 32 bits; the bias is added in floating point. Layers that read the same tensor share its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.bounds import INT32, DataRange, sum_bound
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, calls, erase_unread, insert_call, replace, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import dynamic, integer
from lvc.compiler.measure.comparison.verdict import REMEDY
from lvc.compiler.measure.counts import macs, total_macs
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted, percent, si
from lvc.passes.analysis.patterns import left_out
from lvc.passes.quantisation.already import WHY_NOT, is_quantised_layer, refuse_quantised
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_parameters import weight_parameters

_SCHEME = QuantisationScheme(bits=8, axis=0, symmetric=True, stored=True)
Rows = dict[Node, tuple[Node, Node]]
"""The integers and the scales of a tensor's rows, where they stand already."""


@dataclass(frozen=True, kw_only=True)
class QuantiseDynamically(Pass):
    """Compute linear layers in 8-bit integers, their inputs ranged row by row as the model runs; needs no data."""

    name: ClassVar[str] = "quantise-dynamically"
    effect: ClassVar[Effect] = Effect.LOSSY
    quantises: ClassVar[bool] = True
    explains_integers: ClassVar[bool] = True
    remedy: ClassVar[str] = REMEDY

    only: tuple[str, ...] = option((), "layers to compute in integers, by patterns of names or origins")
    skip: tuple[str, ...] = option((), "layers to leave in floating point, by patterns of names or origins")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome, rows = Outcome(), Rows()
        refuse_quantised(model.module.graph)
        layers = list(calls(model.module.graph, aten.linear.default))
        left = left_out(layers, self.only, self.skip)
        total = total_macs(model.module.graph)
        done = 0
        for layer in layers:
            if reason := left.get(layer) or check(model.module, layer):
                outcome.skip(layer, reason)
                continue
            done += macs(layer)
            outcome.change(layer)
            rewrite(model.module, layer, rows)
        if outcome.changed:
            share, count = percent(done / total), counted(len(outcome.changed), "linear layer")
            outcome.notes.append(f"{share} of {si(total, 'MACs')} run in integers: {count}")
        return outcome


def check(module: GraphModule, layer: Node) -> str | None:
    """Why a linear layer cannot be computed so; None if it can."""
    args = arguments(layer)
    weight = tensor(module, args["weight"])
    if is_quantised_layer(layer):
        return WHY_NOT
    if weight is None:
        return "its weight is computed in the graph"
    if len(args["weight"].users) > 1:
        return "its weight is shared"
    if weight.dtype is not torch.float32 or spec(args["input"]).dtype is not torch.float32:
        return "it does not compute in float32"
    if not bool(weight.isfinite().all()):
        return "its weight holds NaN or infinity"
    bound = sum_bound(_integers(weight)[0], DataRange(-dynamic.LARGEST, dynamic.LARGEST, 0), None)
    if bound > INT32:
        return f"its sums could reach {bound}, and 32 bits hold {INT32}"
    return None


def rewrite(module: GraphModule, layer: Node, rows: Rows) -> None:
    """Put the integer layer in the place of a linear one."""
    args = arguments(layer)
    weight = tensor(module, args["weight"])
    assert weight is not None
    integers, scale = _integers(weight)
    name = str(args["weight"].target)
    q, row_scale = rows.get(args["input"]) or _rows(layer, args["input"])
    rows[args["input"]] = (q, row_scale)
    stored = add_tensor(module, layer, f"{name}_int8", integers)
    factor = add_tensor(module, layer, f"{name}_scale", scale, trainable=False)
    sums = insert_call(layer, integer.linear, q, stored, None, 0, name=f"{layer.name}_sums")
    found = insert_call(layer, integer.rescale, sums, factor, len(spec(sums).shape) - 1)
    found = insert_call(layer, aten.mul.Tensor, found, row_scale)
    if args["bias"] is not None:
        found = insert_call(layer, aten.add.Tensor, found, args["bias"])
    replace(layer, found)
    erase_unread(module, [args["weight"]])


def _rows(layer: Node, value: Node) -> tuple[Node, Node]:
    """Put the rows of a layer's input into integers, before the layer."""
    scale = insert_call(layer, dynamic.row_scale, value, name=f"{value.name}_scale")
    return insert_call(layer, dynamic.quantise_rows, value, scale, name=f"{value.name}_q"), scale


def _integers(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight as ``i8`` and its scales, one for each output channel."""
    parameters = weight_parameters(_SCHEME, weight, least_error=True)
    steps = (weight.detach() / parameters.scale[:, None]).round().clamp(parameters.low, parameters.high)
    return steps.to(torch.int8), parameters.scale

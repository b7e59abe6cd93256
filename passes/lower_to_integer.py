"""Compute in integers what fake quantisation only simulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import calls, erase_dead, family, insert_call, is_call, op_name, replace
from lvc.compiler.ir.layers import FLOATING, INTEGER
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.measure.counts import macs, total_macs
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.rewriting import Rules, rewrite
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import percent, si
from lvc.passes.integer import functions, layers, movement, requantisation
from lvc.passes.integer.codes import store_codes
from lvc.passes.integer.quantisation_parameters import PerTensorParameters

_RULES: Rules = {**layers.RULES, **movement.RULES, **functions.RULES, **requantisation.RULES}


@dataclass(frozen=True, kw_only=True)
class LowerToInteger(Pass):
    """Compute in 8-bit integers, with 32-bit sums, what fake quantisation simulates.

    Layers with quantised inputs and weights, averages, additions, products, concatenations and functions of one value
    between two quantised tensors become integer operators; what stays in floating point is listed with its reason. A
    layer whose sums could overflow is left alone, and so is one whose weight has scales for groups of input channels:
    the floating-point kernel reads it from codes. Results differ from the simulation by rounding: rarely, and then by
    one step of their scale.
    """

    name: ClassVar[str] = "lower-to-integer"
    effect: ClassVar[Effect] = Effect.LOSSY
    explains_integers: ClassVar[bool] = True

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        module = model.module
        total = total_macs(module.graph)
        split_fake_quantisation(module, outcome)
        rewrite(module, _RULES, outcome, otherwise=(refuse,), once=True)
        store_codes(module)
        erase_dead(module)
        report_coverage(module, total, outcome)
        return outcome


def split_fake_quantisation(module: GraphModule, outcome: Outcome) -> None:
    """Make a quantise and a dequantise of every fake quantisation of a value that is computed."""
    for node in calls(module.graph, aten.fake_quantize_per_tensor_affine.default):
        operand = node.args[0]
        assert isinstance(operand, Node)
        parameters = PerTensorParameters.of(node)
        if operand.op == "get_attr":
            continue
        if not parameters.fits:
            outcome.skip(node, f"its integers from {parameters.low} to {parameters.high} do not fit 8 bits")
            continue
        q = insert_call(
            node,
            integer.quantise,
            operand,
            parameters.scale,
            parameters.zero_point,
            parameters.low,
            parameters.high,
            name=f"{operand.name}_q",
        )
        replace(node, insert_call(node, integer.dequantise, q, parameters.scale, parameters.zero_point))
    for node in calls(module.graph, aten.fake_quantize_per_channel_affine.default):
        if node.all_input_nodes[0].op != "get_attr":
            outcome.skip(node, "integer operators take one scale for all of an activation")


def refuse(module: GraphModule, node: Node) -> str | None:
    """Why a call that no rule knows stays in floating point; None if nothing quantised goes into it."""
    quantised = any(is_call(operand, integer.dequantise) for operand in node.all_input_nodes)
    if node.target in FLOATING and macs(node):
        return f"there is no integer form of {op_name(node)}"
    if not quantised or family(node) in (Family.ELEMENTWISE, Family.QUANTISATION):
        return None  # what follows an elementwise call decides
    return f"there is no integer form of {op_name(node)}"


def report_coverage(module: GraphModule, total: int, outcome: Outcome) -> None:
    """Say how much of the arithmetic is done in integers."""
    done = sum(map(macs, calls(module.graph, *INTEGER)))
    if total:
        outcome.notes.append(f"{si(done, 'MACs')} of {si(total, 'MACs')} in integers ({percent(done / total)})")

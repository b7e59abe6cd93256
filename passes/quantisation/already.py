"""A model whose layers are all quantised leaves nothing for a pass that quantises: that is a mistake, and is said."""

from __future__ import annotations

from torch.fx import Graph, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import arguments, calls, family, is_call, op_name, origin
from lvc.compiler.ir.operators import integer
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.passes.quantisation.rules import is_quantised

WHY_NOT = "it is quantised already"


def is_quantised_layer(layer: Node) -> bool:
    """Whether a layer computes in integers, or its weight has few bits; one to be calibrated does not count."""
    if layer.target in integer.OPERATORS:
        return True
    weight = arguments(layer).get("weight")
    if not isinstance(weight, Node):
        return False
    return is_call(weight, DECODE) or (is_quantised(weight) and weight.target is not UNCALIBRATED)


def refuse_quantised(graph: Graph) -> None:
    """Raise `CompileError` if there are layers, and all of them are quantised."""
    layers = [node for node in calls(graph) if family(node) is Family.CONTRACTION]
    if layers and all(map(is_quantised_layer, layers)):
        raise CompileError(
            "the model is quantised already",
            where=f"{origin(layers[0])}, {op_name(layers[0])} at '{layers[0].name}'",
            why="no layer is left in floating point",
            help="start from the floating-point model",
        )


def refuse_calibrated(graph: Graph) -> None:
    """Raise `CompileError` if some is calibrated already: more layers cannot join that."""
    for node in calls(graph):
        if is_quantised(node) and node.target is not UNCALIBRATED:
            raise CompileError(
                "the model is quantised already",
                where=f"{origin(node)}, {op_name(node)} at '{node.name}'",
                help="start from the floating-point model",
            )

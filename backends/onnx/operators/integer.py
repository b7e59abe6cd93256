"""Integer operators, which ONNX cannot say: the model that they were made from has the same numbers."""

from __future__ import annotations

from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.operators import dynamic, functions, integer


def refuse(w: GraphWriter, node: Node) -> str:
    raise w.refuse(
        "ONNX has no operators of this meaning; write the model as it was before lower-to-integer or the like"
    )


WRITERS = dict.fromkeys((*integer.OPERATORS, *functions.OPERATORS, *dynamic.OPERATORS), refuse)

"""Which node of a file is the first that a loaded model computes differently: the file is cut and loaded again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference

from lvc.compiler.ir.counts import padded
from lvc.compiler.load.onnx_importer.reference import FileRun, only
from lvc.compiler.verification.closeness import differences

MOST_BYTES = 1 << 30
"""Files above this size are not cut."""


def first_difference(run: FileRun, inputs: Sequence[np.ndarray], bound: float) -> str:
    """Name the first node, in the file's order, behind which the two part; empty where no cut can be compared.

    Bisection: once a value is wrong, what is computed from it is taken to be wrong as well.
    """
    proto = onnx.load(run.file)
    if proto.ByteSize() > MOST_BYTES:
        return ""
    places = _places(proto, run.outputs)
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if _differs(run, proto, places[middle][1], inputs, bound):
            high = middle
        else:
            low = middle + 1
    if low == len(places):
        return ""
    node, output = places[low]
    return f"node {node.name or output.name} ({node.op_type}), its output '{output.name}'"


def _places(proto: onnx.ModelProto, outputs: Sequence[str]) -> list[tuple[onnx.NodeProto, onnx.ValueInfoProto]]:
    """The nodes that an output depends on, in order, each with a result of known type."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    known = {value.name: value for value in [*inferred.value_info, *inferred.output]}
    needed, kept = set(outputs), []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    found = [(node, name) for node in reversed(kept) for name in node.output if name in needed and name in known]
    return [(node, known[name]) for node, name in found]


def _differs(
    run: FileRun, proto: onnx.ModelProto, output: onnx.ValueInfoProto, inputs: Sequence[np.ndarray], bound: float
) -> bool:
    """Whether the file up to one value is loaded as something else; what cannot be compared counts as equal."""
    from lvc.compiler.load.onnx_importer import from_onnx

    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    del cut.graph.output[:]
    cut.graph.output.append(output)
    shapes = dict(zip(run.inputs, (array.shape for array in inputs), strict=True))
    with tempfile.TemporaryDirectory(prefix="lvc-") as folder:
        file = Path(folder) / "cut.onnx"
        onnx.save(cut, file)
        try:
            model = from_onnx(file, shapes, run.frozen)
            wanted = padded(model.outputs, model.counts, only(run, file, output.name)(inputs))
            return max(differences(model(*inputs), wanted)) > bound
        except Exception:  # a cut may be something that one of the two refuses
            return False

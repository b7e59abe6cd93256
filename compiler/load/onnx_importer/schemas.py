"""What the ONNX standard says of an operator: whether it is defined at an opset, and which operands share a type."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import onnx
import torch

from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer.call import Call
from lvc.compiler.load.onnx_importer.scopes import all_nodes, inner_graphs

_CHECKED_BYTES = 1 << 20  # nodes that hold more are tensors; their sizes are checked where the file is read


STANDARD = ("", "ai.onnx")


def versions_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the opset of each domain that a model uses; the standard's has two names."""
    versions = {entry.domain: min(entry.version, 1 << 30) for entry in proto.opset_import}
    standard = versions.get("", versions.get("ai.onnx", 1))
    return {**versions, "": standard, "ai.onnx": standard}


@lru_cache(maxsize=1024)
def schema_of(operator: str, opset: int, domain: str = "") -> onnx.defs.OpSchema | None:
    """Return the definition of an operator that is in force at an opset; None if there is none."""
    opset = min(opset, 1 << 30)
    return onnx.defs.get_schema(operator, opset, domain) if onnx.defs.has(operator, opset, domain) else None


def is_checkable(node: onnx.NodeProto, versions: dict[str, int]) -> bool:
    """Does ONNX's checker know the operator, and not only that it is deprecated?"""
    schema = schema_of(node.op_type, versions.get(node.domain, 1), node.domain)
    return schema is not None and not schema.deprecated


def check_nodes(nodes: Sequence[onnx.NodeProto], versions: dict[str, int], ir_version: int) -> None:
    """Run ONNX's checker over those nodes alone that it knows; it raises what it finds."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, versions
    for node in all_nodes(nodes):
        if is_checkable(node, versions) and node.ByteSize() < _CHECKED_BYTES and not any(inner_graphs(node)):
            onnx.checker.check_node(node, context)


def check_types(call: Call, names: Sequence[str]) -> None:
    """Refuse operands of different types where the standard wants one, such as weights in double beside float data."""
    schema = schema_of(call.op, call.opset)
    if schema is None or not schema.inputs:
        return
    first: dict[str, int] = {}
    for place in (place for place in range(len(call)) if call.get(place) is not None):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if not formal.is_homogeneous:
            continue
        other = first.setdefault(formal.type_str, place)
        if call.dtype(other) != call.dtype(place):
            raise _mixed(call, {names[at]: call.dtype(at) for at in (other, place)})


def _mixed(call: Call, types: dict[str, torch.dtype]) -> CompileError:
    pairs = [f"'{name}' is {str(dtype).removeprefix('torch.')}" for name, dtype in types.items()]
    return CompileError(
        f"{call.op} mixes two element types",
        where=call.origin,
        why=f"{' and '.join(pairs)}; ONNX wants one type for both",
        help="store the weights in the type of the data (NumPy makes double by default), or put a Cast before the node",
    )

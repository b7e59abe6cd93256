"""Half precision, which is computed in float32: what of a file that concerns, in a note."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import onnx

from lvc.compiler.load.onnx_importer.read import all_tensors
from lvc.compiler.load.onnx_importer.scopes import all_nodes

_NAMES: dict[int, str] = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
_SHOWN = 4


def widened(proto: onnx.ModelProto, file: Path) -> str:
    """Say what of a model was widened to float32; an empty text if nothing was."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in (*proto.graph.input, *proto.graph.output) if value.name not in stored]
    functions = (all_nodes(function.node) for function in proto.functions)
    nodes = chain(all_nodes(proto.graph.node), *functions)
    signature = {value.name: value.type.tensor_type.elem_type for value in values}
    signature = {name: number for name, number in signature.items() if _halves([number])}
    tensors = _halves(tensor.data_type for tensor in all_tensors(proto, file))
    casts = _halves(a.i for node in nodes if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    types = sorted({*tensors, *casts, *_halves(signature.values())})
    if not types:
        return ""
    shown = [*map(repr, list(signature)[:_SHOWN]), *(["..."] if len(signature) > _SHOWN else [])]
    parts = [
        f"{', '.join(shown)} of its signature" if signature else "",
        f"{len(tensors)} stored tensor(s)" if tensors else "",
        f"{len(casts)} cast(s), which round nothing now" if casts else "",
    ]
    return f"{' and '.join(types)} was widened to float32: {'; '.join(filter(None, parts))}"


def _halves(numbers: Iterable[int]) -> list[str]:
    """The names of those element types that are half precision."""
    return [_NAMES[number] for number in numbers if number in _NAMES]

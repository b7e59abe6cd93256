"""Functions of the model, and those by which the ONNX standard defines operators: their bodies in place of calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import onnx
import onnx.inliner

from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer.schemas import STANDARD, schema_of, versions_of
from lvc.compiler.load.onnx_importer.scopes import all_nodes, label


def expand(proto: onnx.ModelProto, known: frozenset[str], file: Path) -> onnx.ModelProto:
    """Replace calls of the model's functions, and operators that are not ``known`` but have a body in the standard.

    A node of a body is named after the node that it stands in.
    """
    _refuse_unusual(proto, file)
    if proto.functions:
        proto = _expand_own(proto, file)
    return _expand_standard(proto, known)


def _refuse_unusual(proto: onnx.ModelProto, file: Path) -> None:
    versions, called = versions_of(proto), {(node.domain, node.op_type) for node in _nodes(proto)}
    for function in proto.functions:
        if (function.domain, function.name) not in called:
            continue
        where = f"{file}, function {function.domain}.{function.name}"
        if function.domain in STANDARD and schema_of(function.name, versions[""]) is not None:
            raise CompileError(f"a function of {file.name} redefines ONNX's {function.name}", where=where)
        own = {entry.domain: entry.version for entry in function.opset_import}
        standard = own.get("", own.get("ai.onnx", versions[""]))
        if standard != versions[""]:
            raise CompileError(
                f"a function of {file.name} uses another opset than the model",
                where=where,
                why=f"opset {standard} in the function, {versions['']} in the model",
                help="export the model again, or expand the function with onnx.inliner",
            )


def _expand_own(proto: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    bodies = {(body.domain, body.name, body.overload): body for body in proto.functions}
    for call in _nodes(proto):
        if (body := bodies.get((call.domain, call.op_type, call.overload))) is not None:
            _complete(call, body.attribute_proto)
    try:
        expanded = onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # the inliner raises what its C++ side raises
        why = str(error).strip().partition("\n")[0]
        raise CompileError(f"the functions of {file.name} cannot be expanded", where=str(file), why=why) from error
    _name_after_calls(proto.graph, expanded.graph, {(body.domain, body.name) for body in proto.functions})
    return expanded


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a model and of its functions, those inside others included."""
    return chain(all_nodes(proto.graph.node), *(all_nodes(function.node) for function in proto.functions))


def _expand_standard(proto: onnx.ModelProto, known: frozenset[str]) -> onnx.ModelProto:
    opset = versions_of(proto)[""]
    wanted = set()
    for node in all_nodes(proto.graph.node):
        schema = schema_of(node.op_type, opset) if node.domain in STANDARD else None
        if schema is None or node.op_type in known:
            continue
        if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
            _complete(node, (a.default_value for a in schema.attributes.values() if a.default_value.name))
            wanted.add((node.domain, node.op_type))
    if not wanted:
        return proto
    try:
        expanded = onnx.inliner.inline_selected_functions(proto, sorted(wanted), False, True)
    except Exception:  # some bodies want types that nothing tells; the operators stay and are refused by name
        return proto
    _name_after_calls(proto.graph, expanded.graph, wanted)
    return expanded


def _complete(call: onnx.NodeProto, defaults: Iterable[onnx.AttributeProto]) -> None:
    """Write the defaults of a function's attributes into a call, since ONNX's inliner forgets them."""
    given = {attribute.name for attribute in call.attribute}
    call.attribute.extend(default for default in defaults if default.name not in given)


def _name_after_calls(before: onnx.GraphProto, after: onnx.GraphProto, called: set[tuple[str, str]]) -> None:
    """Name the nodes of bodies: they stand where their call stood, up to the last of its results."""
    calls = [node for node in before.node if (node.domain, node.op_type) in called]
    stayed = {tuple(node.output) for node in before.node if (node.domain, node.op_type) not in called}
    left = {name for call in calls for name in call.output if name}
    for node in after.node:
        if not calls or tuple(node.output) in stayed:
            continue
        for inner in all_nodes([node]):
            inner.name = f"{label(calls[0])}: {inner.name or next(filter(None, inner.output), inner.op_type)}"
        left.difference_update(node.output)
        if left.isdisjoint(calls[0].output):
            del calls[0]

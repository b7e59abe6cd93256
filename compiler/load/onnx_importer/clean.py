"""From a parsed file to a graph-surgeon graph that holds what the outputs need, in order, functions expanded."""

from __future__ import annotations

import heapq
from collections import Counter
from pathlib import Path

import onnx
import onnx.checker
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer.functions import expand
from lvc.compiler.load.onnx_importer.schemas import check_nodes, is_checkable, versions_of
from lvc.compiler.load.onnx_importer.scopes import inner_graphs, label, read_from_outside, separate


def clean(proto: onnx.ModelProto, known: frozenset[str], file: Path) -> gs.Graph:
    """Order the nodes, check the structure, expand functions that are not among the ``known`` operators, drop the rest.

    Functions are those of the model and those that the ONNX standard defines by a body.
    """
    _order_nodes(proto.graph, file)
    separate(proto.graph)
    _check(proto, file)
    proto = expand(proto, known, file)
    try:
        with G_LOGGER.suppress():
            graph = gs.import_onnx(proto)
            graph.cleanup(recurse_functions=False)  # unread outputs stay: a result is known by its place
    except Exception as error:  # the file is untrusted and graph-surgeon raises many types
        raise CompileError(f"{file.name} is not well formed", where=str(file), why=_first_line(error)) from error
    return graph


def _order_nodes(graph: onnx.GraphProto, file: Path) -> None:
    """Bring the nodes, also of inner graphs, into topological order, keeping the file's order where it is one."""
    producer: dict[str, int] = {}
    given = _given_names(graph, file)
    for index, node in enumerate(graph.node):
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        if not all(isinstance(text, str) for text in names):
            raise CompileError(
                f"{file.name} is not well formed", where=str(file), why=f"node {index} has a broken name"
            )
        for name in filter(None, node.output):
            if name in producer:
                raise CompileError(
                    f"two nodes of {file.name} write '{name}'",
                    where=f"{file}, nodes {label(graph.node[producer[name]])} and {label(node)}",
                )
            if name in given:
                where = f"{file}, node {label(node)}"
                raise CompileError(f"a node of {file.name} writes '{name}', an input or stored tensor", where=where)
            producer[name] = index
        for inner in inner_graphs(node):
            _order_nodes(inner, file)
    sources = [{producer[name] for name in read_from_outside(node) if name in producer} for node in graph.node]
    if all(max(needs, default=-1) < index for index, needs in enumerate(sources)):
        return
    order = _topological(sources)
    if len(order) < len(sources):
        stuck = next(index for index in range(len(sources)) if index not in set(order))
        raise CompileError(
            f"the nodes of {file.name} form a cycle", where=f"{file}, among others node {label(graph.node[stuck])}"
        )
    nodes = [graph.node[index] for index in order]
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def _given_names(graph: onnx.GraphProto, file: Path) -> set[str]:
    """Return the names of inputs and stored tensors; a stored tensor may be the default of an input."""
    stored = [*(t.name for t in graph.initializer), *(t.values.name for t in graph.sparse_initializer)]
    inputs = [value.name for value in graph.input]
    for names, what in ((inputs, "inputs"), (stored, "stored tensors")):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise CompileError(f"two {what} of {file.name} are called '{twice}'", where=str(file))
    return {*stored, *inputs}


def _topological(sources: list[set[int]]) -> list[int]:
    """Kahn's algorithm with the smallest free index first; shorter than the input where there is a cycle."""
    users: list[list[int]] = [[] for _ in sources]
    missing = [len(needs) for needs in sources]
    for index, needs in enumerate(sources):
        for need in needs:
            users[need].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    return order


def _check(proto: onnx.ModelProto, file: Path) -> None:
    """Run ONNX's checker; of a model with operators that it does not know, or larger than it takes, on the others."""
    versions = versions_of(proto)
    is_whole = all(is_checkable(node, versions) for node in proto.graph.node) and proto.ByteSize() <= 1 << 30
    kinds = [value.type.tensor_type for value in (*proto.graph.input, *proto.graph.output)]
    shapeless = [kind for kind in kinds if not kind.HasField("shape") and kind.elem_type]
    for kind in shapeless:  # the checker wants a shape; a caller may give it, or the graph tell it
        kind.shape.SetInParent()
    try:
        if is_whole:
            onnx.checker.check_model(proto)
        else:
            check_nodes(proto.graph.node, versions, proto.ir_version)
    except Exception as error:  # the checker raises its own type and those of the parser
        raise CompileError(f"{file.name} is not well formed", where=str(file), why=_first_line(error)) from error
    for kind in shapeless:
        kind.ClearField("shape")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

"""Names of graphs inside nodes. Such a graph reads the names around it, and hides those that it defines itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count

import onnx


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds, such as the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def label(node: onnx.NodeProto) -> str:
    """Name a node to people: by its name or its results, and its operator."""
    return f"{node.name or ', '.join(node.output)} ({node.op_type})"


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in inner_graphs(node):
            yield from all_nodes(graph.node)


def defined(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a graph defines: its inputs, stored tensors and results."""
    names = {value.name for value in chain(graph.input, graph.initializer)}
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    names.update(chain.from_iterable(node.output for node in graph.node))
    return names - {""}


def read_from_outside(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those that the graphs inside it read from around them included."""
    names = set(node.input)
    for graph in inner_graphs(node):
        inside = set(chain.from_iterable(map(read_from_outside, graph.node)))
        names |= inside.union(value.name for value in graph.output) - defined(graph)
    return names - {""}


def separate(graph: onnx.GraphProto, visible: frozenset[str] = frozenset()) -> None:
    """Rename what hides a name of an outer graph, so that a name means one tensor wherever it is read."""
    visible |= defined(graph)
    for node in graph.node:
        for inner in inner_graphs(node):
            hiding = defined(inner) & visible
            if hiding:
                taken = visible | defined(inner)
                _rename(inner, {name: _free(name, taken) for name in sorted(hiding)})
            separate(inner, visible)


def _free(name: str, taken: frozenset[str]) -> str:
    return next(near for near in (f"{name}_{number}" for number in count(1)) if near not in taken)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for named in chain(graph.input, graph.output, graph.value_info, graph.initializer):
        named.name = names.get(named.name, named.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            own = defined(inner)
            _rename(inner, {old: new for old, new in names.items() if old not in own})

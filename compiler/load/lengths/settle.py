"""The last step of loading a model with lists whose length depends on the data: their marks become counts of outputs.

`counted` marks where a list begins. From there its length is followed to the outputs, and calls that would see what
lies behind its end are changed so that they do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.counts import Count
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, erase_dead, insert_call, is_call, settle_names, spec, tensor
from lvc.compiler.ir.operators import ordering
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.load.lengths.call import Call, Lengths, Places, Scalars
from lvc.compiler.load.lengths.rules import RULES


def settle_lengths(module: GraphModule, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Count]]:
    """Take the marks out of a graph; return the names of its outputs, counts behind the others, and what they count.

    What lies behind the last valid element of an output is zero.
    """
    if not any(calls(module.graph, counted)):
        return tuple(names), {}
    known, scalars = _followed(module)
    names, counts = _closed(module, names, known, scalars)
    for node in calls(module.graph, counted):
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    erase_dead(module)
    settle_names(module.graph)
    return tuple(names), counts


def _followed(module: GraphModule) -> tuple[dict[Node, Lengths], Scalars]:
    known: dict[Node, Lengths] = {}
    scalars, same = Scalars(module.graph), _Same()
    places: dict[Node, Places] = {}
    for node in calls(module.graph):
        same.first(node)
        call = Call(module, node, known, scalars, places)
        if (found := _places(module, node, known, places)) is not None:
            places[node] = found
        if is_call(node, counted):
            x, count, dim = (arguments(node)[name] for name in ("x", "count", "dim"))
            known[node] = {**known.get(x, {}), dim % len(spec(node).shape): same.first(count)}
        elif any(known.get(operand) for operand in node.all_input_nodes):
            if node.target not in RULES:
                raise call.refuse("nothing is known of what it does to such a list")
            lengths = RULES[node.target](call)
            for made in (node, *call.made):
                known[made] = lengths
    return known, scalars


_MOVED = (aten.reshape.default, aten.permute.default, aten.expand.default, aten.slice.Tensor, aten.to.dtype)


def _places(
    module: GraphModule, node: Node, known: Mapping[Node, Lengths], places: Mapping[Node, Places]
) -> Places | None:
    """What the elements of a value count in: where a mask for a list is true, moved about or wrapped around its end."""
    first = node.args[0] if node.args else None
    if is_call(node, counted) and isinstance(first, Node) and is_call(first, ordering.argsort):
        mask = arguments(first)["x"]
        lengths, shape = known.get(mask, {}), spec(mask).shape
        return Places(shape[0], lengths[0]) if len(shape) == 1 and lengths else None
    if not isinstance(first, Node) or first not in places:
        return None
    if is_call(node, aten.remainder.Tensor):
        size = tensor(module, node.args[1])
        return places[first] if size is not None and size.numel() == 1 and int(size) == places[first].most else None
    return places[first] if is_call(node, *_MOVED) else None


class _Same:
    """Which call was the first to compute the same: lists that one mask selects have one length."""

    def __init__(self) -> None:
        self._first: dict[object, Node] = {}
        self._known: dict[Node, Node] = {}

    def first(self, node: Node) -> Node:
        if node.op != "call_function":
            return node
        if node not in self._known:
            args, kwargs = map_arg((node.args, node.kwargs), self._as_first)
            self._known[node] = self._first.setdefault((node.target, str(args), str(kwargs)), node)
        return self._known[node]

    def _as_first(self, node: Node) -> Node:
        return self._known.get(node, node)


def _closed(
    module: GraphModule, names: Sequence[str], known: dict[Node, Lengths], scalars: Scalars
) -> tuple[list[str], dict[str, Count]]:
    """Fill what is not valid of the outputs with zeros, and add the counts to them."""
    output = module.graph.output_node()
    results: list[Node] = list(output.args[0])  # type: ignore[arg-type]
    given: dict[Node, str] = {}
    counts = {}
    for place, (name, node) in enumerate(zip(names, results, strict=True)):
        lengths = known.get(node, {})
        if not lengths:
            continue
        if len(lengths) > 1:
            raise CompileError(
                f"output '{name}' has two lengths that depend on the data",
                why="an output is cut along one axis",
                help="let the model return the lists that it is made of",
            )
        ((axis, count),) = lengths.items()
        call = Call(module, output, known, scalars, {})
        zero = scalars.number(module, 0, spec(node).dtype)
        results[place] = insert_call(output, aten.where.self, call.valid(axis, spec(node).shape, count), node, zero)
        given.setdefault(count, _free(f"{name}_count", [*names, *given.values()]))
        counts[name] = Count(given[count], axis)
    output.args = ((*results, *given),)
    return [*names, *given.values()], counts


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name

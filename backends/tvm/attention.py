"""Which calls of a graph are attention that one kernel can compute: two products with softmax between them, what is
done to scores and weights on the way, and what only moves or scales the operands in front and the result behind.

All is in float32, or both products are of a shorter type, into which softmax and the result are converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, Node

from lvc.backends.tvm.device import Group
from lvc.backends.tvm.operands import is_inlined, stored
from lvc.backends.tvm.program import ScheduleFunction
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import arguments, calls, is_call, spec

aten = torch.ops.aten

QUERY, KEY, VALUE, RESULT = "query", "key", "value", "result"
SCORES, BIASED, SOFTMAX, WEIGHTS = "scores", "biased", "softmax", "weights"
"""The stages of the function: queries ``[.., m, d]``, keys ``[.., d, n]`` and values ``[.., n, e]``; scores and softmax
``[.., m, n]``, behind each what an elementwise computation makes of it, if there is any; the result ``[.., m, e]``."""

BEFORE: Mapping[str, str] = {BIASED: SCORES, WEIGHTS: SOFTMAX}
"""The stages that are made of another one, element by element."""

_MOVES = (aten.reshape.default, aten.permute.default, aten.slice.Tensor)
_SCALES = (aten.mul.Tensor, aten.div.Tensor)
_ON_THE_WAY = (*_SCALES, aten.add.Tensor, aten.sub.Tensor, aten.where.self, aten.reshape.default)


@dataclass
class Found:
    """Attention in a graph: the calls by what they compute, and all of them. ``result`` is the second product, or its
    elements under another shape; ``written`` moves what has the shape of ``shaped`` to where it shall lie. Products
    are of an ``element`` type."""

    scores: Node
    biased: Node
    softmax: Node
    weights: Node
    product: Node
    nodes: set[Node]
    element: torch.dtype
    result: Node = field(init=False)
    shaped: Node = field(init=False)
    written: Node = field(init=False)

    def __post_init__(self) -> None:
        self.result = self.shaped = self.written = self.product

    @property
    def operands(self) -> tuple[Node, Node, Node]:
        """Queries, keys and values."""
        query, key = self.scores.args[:2]
        value = self.product.args[1]
        assert isinstance(query, Node)
        assert isinstance(key, Node)
        assert isinstance(value, Node)
        return stored(query), stored(key), stored(value)

    @property
    def order(self) -> tuple[int, ...]:
        """Which dimension of ``shaped`` each of what is written is."""
        rank = len(spec(self.shaped).shape)
        moved = is_call(self.written, aten.permute.default)
        return tuple(dim % rank for dim in arguments(self.written)["dims"]) if moved else tuple(range(rank))


def groups(graph: Graph, element: torch.dtype, schedule: Callable[[Found], ScheduleFunction | None]) -> Iterator[Group]:
    """All attention of a graph with products of an element type for which there is a schedule."""
    marked: dict[str, set[Node]] = {}
    for node in calls(graph):
        if "group" in node.meta:
            marked.setdefault(str(node.meta["group"]), set()).add(node)
    order = {node: place for place, node in enumerate(graph.nodes)}
    taken: set[Node] = set()
    for softmax in calls(graph, aten.softmax.int):
        found = _found(softmax, element)
        if found is None or not _is_whole(found.nodes, marked):
            continue
        _take_moves(found, marked, taken)
        _take_order(found, taken)
        made = schedule(found)
        if made is None:
            continue
        taken |= found.nodes
        nodes = tuple(sorted((node for node in found.nodes if not is_inlined(node)), key=order.__getitem__))
        yield Group(nodes, _stages(found), found.written, made)


def _found(softmax: Node, element: torch.dtype) -> Found | None:
    """The attention around softmax; None if it is no part of any."""
    shape, biased = spec(softmax).shape, softmax.args[0]
    if len(shape) < 2 or arguments(softmax)["dim"] % len(shape) != len(shape) - 1:
        return None
    assert isinstance(biased, Node)
    before = _path_to_scores(biased)
    after = _path_to_result(softmax)
    if before is None or after is None:
        return None
    weights = after[-2] if after[1:] else softmax
    found = Found(before[-1], biased, softmax, weights, after[-1], {*before, softmax, *after}, element)
    if len(set(found.operands)) < 3 or any(operand.op == "get_attr" for operand in found.operands):
        return None
    if not (_is_single(found) if element is torch.float32 else _is_short(found, after)):
        return None
    (heads, *others) = (math.prod(spec(node).shape[:-2]) for node in (found.product, *found.operands))
    return found if all(heads == other for other in others) else None


def _is_single(found: Found) -> bool:
    """Whether all is in float32, in memory too."""
    read = (*found.scores.all_input_nodes, *found.product.all_input_nodes)
    return not any(spec(node).dtype is not torch.float32 or is_inlined(node) for node in (*found.nodes, *read))


def _is_short(found: Found, after: Sequence[Node]) -> bool:
    """Whether the products are of the short type and what is between them is in float32, but for the weights, which
    are softmax rounded; adds the rounding of the result, and what reads short operands."""
    products = found.scores, found.product
    if any(multiplied_dtype(node) is not found.element for node in products):
        return False
    if [node.target for node in after] != [aten.to.dtype, aten.to.dtype, aten.matmul.default]:
        return False
    if any(spec(node).dtype is not torch.float32 or is_inlined(node) for node in found.nodes - set(after)):
        return False
    found.nodes.update(operand for node in products for operand in node.all_input_nodes if is_inlined(operand))
    user = _only_user(found.product, set())
    if user and is_call(user, aten.to.dtype) and spec(user).dtype is found.element:
        found.nodes.add(user)
        found.written = user
    return True


def _path_to_scores(node: Node) -> list[Node] | None:
    """The calls from a value, which softmax alone reads, back to the product that it comes from, itself included."""
    if len(node.users) != 1 or node.op != "call_function":
        return None
    if is_call(node, aten.matmul.default):
        return [node]
    if not _is_on_the_way(node):
        return None
    same = [operand for operand in node.all_input_nodes if spec(operand).elements == spec(node).elements]
    paths = (_path_to_scores(operand) for operand in same if spec(operand).shape[-2:] == spec(node).shape[-2:])
    path = next((path for path in paths if path), None)
    return path and [node, *path]


def _path_to_result(node: Node) -> list[Node] | None:
    """The calls from weights on to their product with the values, conversions among them."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if is_call(user, aten.matmul.default):
        return [user] if user.args[0] is node and user.args[1] is not node else None
    is_next = _is_on_the_way(user) or is_call(user, aten.to.dtype)
    if not is_next or spec(user).elements != spec(node).elements:
        return None
    path = _path_to_result(user)
    return path and [user, *path]


def _is_on_the_way(node: Node) -> bool:
    """Whether a call computes scores of scores, row by row."""
    if not is_call(node, *_ON_THE_WAY):
        return False
    before = node.all_input_nodes[0]
    return not is_call(node, aten.reshape.default) or spec(before).shape[-2:] == spec(node).shape[-2:]


def _is_whole(nodes: Iterable[Node], marked: dict[str, set[Node]]) -> bool:
    """Whether no call is in a marked group with others."""
    nodes = set(nodes)
    return all(marked.get(str(node.meta.get("group")), set()) <= nodes for node in nodes)


def _take_moves(found: Found, marked: dict[str, set[Node]], taken: set[Node]) -> None:
    """Add the calls that move or scale the operands and that nobody else reads, but for those of other groups."""

    def is_free(node: Node) -> bool:
        return set(node.users) <= found.nodes and node not in taken and _moves(node, found.element, marked)

    pending = dict.fromkeys(found.operands)
    while more := [node for node in pending if is_free(node)]:
        found.nodes.update(more)
        pending |= dict.fromkeys(node.all_input_nodes[0] for node in more)
        pending = {node: None for node in pending if node not in found.nodes}


def _take_order(found: Found, taken: set[Node]) -> None:
    """Add the calls behind the product that the kernel can write in the order of: the outer dimensions under another
    shape, then rows and outer dimensions in another order, then any shape."""
    user, rows = _only_user(found.written, taken), spec(found.result).shape[-2:]
    if user and is_call(user, aten.reshape.default) and spec(user).shape[-2:] == rows:
        found.nodes.add(user)
        if found.written is found.result:
            found.result = user
        found.written = found.shaped = user
        user = _only_user(user, taken)
    rank = len(spec(found.shaped).shape)
    if user and is_call(user, aten.permute.default) and arguments(user)["dims"][-1] % rank == rank - 1:
        found.nodes.add(user)
        found.written, user = user, _only_user(user, taken)
    while user and is_call(user, aten.reshape.default):
        found.nodes.add(user)
        user = _only_user(user, taken)


def _only_user(node: Node, taken: set[Node]) -> Node | None:
    """The one call that reads a value, unless it is of another group; None if there are others."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" and users[0] not in taken else None


def _moves(node: Node, element: torch.dtype, marked: dict[str, set[Node]]) -> bool:
    """Whether a call only moves elements or scales them all alike."""
    if (
        node.op != "call_function"
        or is_inlined(node)
        or not _is_whole([node], marked)
        or spec(node).dtype is not element
    ):
        return False
    if is_call(node, *_SCALES):
        return len(node.all_input_nodes) == 1 and isinstance(node.args[0], Node)
    return is_call(node, *_MOVES) and node.all_input_nodes[0].op != "get_attr"


def _stages(found: Found) -> dict[Node, str]:
    """The calls that are stages of the kernel's function, by name."""
    query, key, value = found.operands
    named = {
        query: QUERY,
        key: KEY,
        value: VALUE,
        found.scores: SCORES,
        found.softmax: SOFTMAX,
        found.result: RESULT,
    }
    if found.biased is not found.scores:
        named[found.biased] = BIASED
    if found.weights is not found.softmax and not is_inlined(found.weights):
        named[found.weights] = WEIGHTS
    return named

"""Which calls of a graph are attention that one kernel computes: two products with softmax between them, what is done
to scores and weights on the way, and what only moves or scales the operands in front and the result behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, Node

from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import attention
from lvc.backends.tvm.cpu.kernels import attention_operands as stages
from lvc.backends.tvm.cpu.kernels.attention_operands import Attention
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Group
from lvc.backends.tvm.operands import is_inlined
from lvc.compiler.ir.graph import arguments, calls, is_call, spec

aten = torch.ops.aten

_MOVES = (aten.reshape.default, aten.permute.default, aten.slice.Tensor)
_SCALES = (aten.mul.Tensor, aten.div.Tensor)
_ON_THE_WAY = (*_SCALES, aten.add.Tensor, aten.sub.Tensor, aten.where.self, aten.reshape.default)


@dataclass
class _Found:
    """Attention in a graph: the calls by what they compute, and all of them. ``result`` is the second product, or its
    elements under another shape; ``written`` moves them to where they shall lie."""

    scores: Node
    biased: Node
    softmax: Node
    weights: Node
    product: Node
    nodes: set[Node]
    result: Node = field(init=False)
    written: Node = field(init=False)

    def __post_init__(self) -> None:
        self.result = self.written = self.product

    @property
    def operands(self) -> tuple[Node, Node, Node]:
        """Queries, keys and values."""
        query, key = self.scores.args[:2]
        value = self.product.args[1]
        assert isinstance(query, Node)
        assert isinstance(key, Node)
        assert isinstance(value, Node)
        return query, key, value


def groups(graph: Graph, vector: Vector) -> Iterator[Group]:
    """All attention of a graph for which the kernel is used on a target."""
    marked: dict[str, set[Node]] = {}
    for node in calls(graph):
        if "group" in node.meta:
            marked.setdefault(str(node.meta["group"]), set()).add(node)
    order = {node: place for place, node in enumerate(graph.nodes)}
    taken: set[Node] = set()
    for softmax in calls(graph, aten.softmax.int):
        found = _found(softmax)
        if found is None or not _is_whole(found.nodes, marked):
            continue
        _take_moves(found, marked, taken)
        _take_order(found, taken)
        problem = _problem(found, vector)
        if not attention.serves(problem, vector):
            continue
        knobs = attention.choose_knobs(problem, vector)
        taken |= found.nodes
        nodes = tuple(sorted(found.nodes, key=order.__getitem__))
        yield Group(nodes, _stages(found), found.written, KernelSchedule(attention.schedule, problem, knobs))


def _found(softmax: Node) -> _Found | None:
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
    found = _Found(before[-1], biased, softmax, weights, after[-1], {*before, softmax, *after})
    if len(set(found.operands)) < 3 or any(operand.op == "get_attr" for operand in found.operands):
        return None
    if any(spec(node).dtype is not torch.float32 or is_inlined(node) for node in (*found.nodes, *found.operands)):
        return None
    (heads, *others) = (math.prod(spec(node).shape[:-2]) for node in (found.product, *found.operands))
    return found if all(heads == other for other in others) else None


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
    """The calls from weights on to their product with the values."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if is_call(user, aten.matmul.default):
        return [user] if user.args[0] is node and user.args[1] is not node else None
    if not _is_on_the_way(user) or spec(user).elements != spec(node).elements:
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


def _problem(found: _Found, vector: Vector) -> Attention:
    queries, keys = spec(found.scores).shape[-2:]
    (query, _, value), batch = found.operands, spec(found.result).shape[:-2]
    return Attention(batch, queries, keys, spec(query).shape[-1], spec(value).shape[-1], vector.lanes)


def _take_moves(found: _Found, marked: dict[str, set[Node]], taken: set[Node]) -> None:
    """Add the calls that move or scale the operands and that nobody else reads, but for those of other groups."""

    def is_free(node: Node) -> bool:
        return set(node.users) <= found.nodes and node not in taken and _moves(node, marked)

    pending = dict.fromkeys(found.operands)
    while more := [node for node in pending if is_free(node)]:
        found.nodes.update(more)
        pending |= dict.fromkeys(node.all_input_nodes[0] for node in more)
        pending = {node: None for node in pending if node not in found.nodes}


def _take_order(found: _Found, taken: set[Node]) -> None:
    """Add the calls behind the product that the kernel can write in the order of: the outer dimensions under another
    shape, then rows and outer dimensions in another order, then any shape."""
    user = _only_user(found.result, taken)
    if user and is_call(user, aten.reshape.default) and spec(user).shape[-2:] == spec(found.result).shape[-2:]:
        found.nodes.add(user)
        found.result = found.written = user
        user = _only_user(user, taken)
    rank = len(spec(found.result).shape)
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


def _moves(node: Node, marked: dict[str, set[Node]]) -> bool:
    """Whether a call only moves elements or scales them all alike."""
    if (
        node.op != "call_function"
        or is_inlined(node)
        or not _is_whole([node], marked)
        or spec(node).dtype is not torch.float32
    ):
        return False
    if is_call(node, *_SCALES):
        return len(node.all_input_nodes) == 1 and isinstance(node.args[0], Node)
    return is_call(node, *_MOVES) and node.all_input_nodes[0].op != "get_attr"


def _stages(found: _Found) -> dict[Node, str]:
    """The calls that are stages of the kernel's function, by name."""
    query, key, value = found.operands
    named = {
        query: stages.QUERY,
        key: stages.KEY,
        value: stages.VALUE,
        found.scores: stages.SCORES,
        found.softmax: stages.SOFTMAX,
        found.result: stages.RESULT,
    }
    if found.biased is not found.scores:
        named[found.biased] = stages.BIASED
    if found.weights is not found.softmax:
        named[found.weights] = stages.WEIGHTS
    return named

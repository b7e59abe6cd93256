"""Attention as products of two layers' channels, head by head, whose basis is free.

Scores are the products of what a query layer and a key layer make, summed over the dimensions of a head; what a head
gives is that of a value layer, mixed over places and read by an output layer. So in both the dimensions of a head are a
basis that any other may stand for, as long as nothing on the way looks at single dimensions: a normalisation, a
rotation by position. What is added to scores, such as a mask or a bias by position, does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, calls, family, is_call, op_name, origin, spec
from lvc.compiler.ir.layers import factors
from lvc.passes.analysis.readings import Handing, Reading, ends, hand_over, read, step_back

_LEAST_WIDTH = 2


class Kind(Enum):
    """Which two layers meet in a product."""

    SCORES = "query/key"
    VALUES = "value/output"


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product in which the channels of two layers meet head by head: those that ``first`` makes with those
    that ``second`` makes, or with those of what is mixed that it reads.

    ``shifts`` tells that what all places of the second have in common makes no difference to the model: softmax along
    them takes it out again. ``weighs`` is the call that mixes values by scores, behind softmax.
    """

    node: Node
    kind: Kind
    first: Reading
    second: Reading | Handing
    shifts: bool = False
    weighs: Node | None = None

    @property
    def heads(self) -> int:
        return self.first.rows.shape[0]

    @property
    def width(self) -> int:
        return self.first.rows.shape[1]

    @property
    def layers(self) -> tuple[Node, Node]:
        return self.first.layer, self.second.layer

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{origin(self.node)} ({self.kind.value})"


def products(graph: Graph) -> Iterator[Product | tuple[Node, str]]:
    """Yield the products of a graph in order, and in their place those of attention that are none, each with why."""
    for node in calls(graph, aten.matmul.default):
        softmax = _softmax_behind(node)
        scores = _scores(node, softmax)
        if isinstance(scores, Product):
            yield scores
        elif softmax:
            yield node, f"queries and keys: {scores}"
        values = _values(node)
        if isinstance(values, Product):
            yield values
        elif any(map(_is_from_softmax, factors(node))):
            yield node, f"values: {values}"


def _scores(node: Node, softmax: tuple[Node, int] | None) -> Product | str:
    """The product of queries and keys that a call computes."""
    left, right = factors(node)
    if left is right:
        return "they are one and the same"
    sides = read(left, -1), read(right, -2)
    if reason := next((side for side in sides if isinstance(side, str)), None):
        return reason
    first, second = sides
    assert isinstance(first, Reading)
    assert isinstance(second, Reading)
    if first.batch != second.batch:
        return "heads share them"
    if softmax and softmax[1] == -2:
        first, second = second, first
    readers = [reader for _, reader in ends(softmax[0])] if softmax else []
    weighs = readers[0] if len(readers) == 1 else None
    return _checked(Product(node, Kind.SCORES, first, second, softmax is not None, weighs))


def _values(node: Node) -> Product | str:
    """The product of weights of places and values that a call computes, an output layer behind it."""
    reason = ""
    for value, dim in zip(factors(node), (-2, -1), strict=True):
        first = read(value, dim)
        if isinstance(first, str):
            reason = reason if _is_from_softmax(value) else first
            continue
        if spec(value).shape[:-2] != spec(node).shape[:-2]:
            return "heads share them"
        second = hand_over(node, first, dim)
        return second if isinstance(second, str) else _checked(Product(node, Kind.VALUES, first, second))
    return reason


def _checked(product: Product) -> Product | str:
    if product.width < _LEAST_WIDTH:
        return "a head has one dimension"
    own = {side.value: side for side in (product.first, product.second) if isinstance(side, Reading)}
    for value in own:
        if any(user is not product.node for user in value.users):
            return f"they are read by {len(value.users)} calls"
    reasons = (_apart(layer, own) for layer in dict.fromkeys(side.layer for side in own.values()))
    return next(filter(None, reasons), None) or product


def _apart(layer: Node, own: Mapping[Node, Reading]) -> str | None:
    """Why the channels of a layer that one value holds are no layer of their own; None if they are.

    All others may be read in several values, as long as these hold the same.
    """
    taken, others = list[int](), set[tuple[float, tuple[int, ...]]]()
    for value, reader in dict(ends(layer)).items():
        found = own.get(value) or read(value)
        if isinstance(found, str):
            return f"the layer that makes them is read by {op_name(reader)} as well, in which {found}"
        rows = found.rows.flatten().tolist()
        if value in own:
            taken += rows
        else:
            others.add((found.scale, tuple(rows)))
    taken += [row for _, rows in others for row in rows]
    return "they are read elsewhere as well" if len(set(taken)) < len(taken) else None


def _softmax_behind(node: Node) -> tuple[Node, int] | None:
    """The softmax that a product's result goes into with nothing but a scale and sums on the way, which change nothing
    about what it takes out, and along which of the last two dimensions it goes."""
    value, moved = node, False
    while len(value.users) == 1:
        (user,) = value.users
        if is_call(user, aten.softmax.int):
            dim = arguments(user)["dim"] % len(spec(user).shape) - len(spec(user).shape)
            return (user, dim) if dim == -1 or (dim == -2 and not moved) else None
        is_reshape = is_call(user, aten.reshape.default) and spec(user).shape[-1] == spec(value).shape[-1]
        if not (is_reshape or _keeps_shifts(user, value)):
            return None
        value, moved = user, moved or is_reshape
    return None


def _keeps_shifts(user: Node, value: Node) -> bool:
    """Whether scores shifted alike come out shifted alike: a sum, or a scale that is one for all of them."""
    if step_back(user) or (is_call(user, aten.add.Tensor) and spec(user).shape == spec(value).shape):
        return family(user) is Family.ELEMENTWISE
    others = [operand for operand in user.all_input_nodes if operand is not value]
    is_scaled = is_call(user, aten.mul.Tensor) or (is_call(user, aten.div.Tensor) and user.args[0] is value)
    return is_scaled and len(others) == 1 and spec(others[0]).shape[-2:] in ((), (1,), (1, 1))


def _is_from_softmax(value: Node) -> bool:
    """Whether a value is what softmax gives, moved or scaled."""
    while step := step_back(value):
        value = step[0]
    return is_call(value, aten.softmax.int)

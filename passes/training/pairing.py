"""Which values of a student and its teacher belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch.fx import Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import family, origin, spec
from lvc.compiler.ir.model import Model
from lvc.passes.training.objective import scores_node

_FEWEST_STAGES, _PLACES = 3, 4

Key = tuple[str, object, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """A student and its teacher, which take the same input and give outputs of the same shapes.

    ``is_descendant`` says that the student was made from the teacher, so that nodes of one origin belong together,
    however much was removed between; else those do that are the last of their resolution.
    """

    student: Model
    teacher: Model
    is_descendant: bool

    def check(self) -> None:
        """Raise `UsageError` unless both have one signature."""
        for what, ours, theirs in (
            ("input", self.student.inputs, self.teacher.inputs),
            ("output", self.student.outputs, self.teacher.outputs),
        ):
            if [value.spec for value in ours] != [value.spec for value in theirs]:
                raise UsageError(
                    f"the teacher '{self.teacher.name}' has other {what}s than the student",
                    why=f"{', '.join(map(str, theirs))} in place of {', '.join(map(str, ours))}",
                    help="name a teacher for the same inputs and outputs, such as teacher=original",
                )

    @cached_property
    def outputs(self) -> tuple[tuple[Node, Node], ...]:
        """All outputs, before a last softmax or sigmoid."""
        count = len(self.student.output_names)
        return tuple((scores_node(self.student, i), scores_node(self.teacher, i)) for i in range(count))

    @cached_property
    def features(self) -> tuple[tuple[Node, Node], ...]:
        """Inner values in pairs of one shape but for the channels: the last of each resolution, or else a few spread
        over the depth. `UsageError` if there are none."""
        ours, theirs = (list(_inner_values(model)) for model in (self.student, self.teacher))
        found = self._spread() or self._by_resolution(ours, theirs)
        if not found:
            raise UsageError("student and teacher have no inner values to compare", help="compare their outputs alone")
        return tuple(found)

    @cached_property
    def by_origin(self) -> tuple[tuple[Node, Node], ...]:
        """Inner values of one origin and of one shape but for the channels; none unless the student is a descendant."""
        if not self.is_descendant:
            return ()
        ours, theirs = (list(_inner_values(model)) for model in (self.student, self.teacher))
        known = dict(zip(_keys(theirs), theirs, strict=True))
        pairs = ((node, known.get(key)) for key, node in zip(_keys(ours), ours, strict=True))
        return tuple((node, other) for node, other in pairs if other and _resolution(node) == _resolution(other))

    def _spread(self) -> list[tuple[Node, Node]]:
        """Of the values of one origin the last of each resolution, or else a few spread over the depth."""
        pairs = self.by_origin
        last = {_resolution(node): (node, other) for node, other in pairs}
        if len(last) >= _FEWEST_STAGES or len(pairs) <= _PLACES:
            return list(last.values())
        return [pairs[(place + 1) * len(pairs) // _PLACES - 1] for place in range(_PLACES)]

    def _by_resolution(self, ours: list[Node], theirs: list[Node]) -> list[tuple[Node, Node]]:
        last = {_resolution(node): node for node in theirs}
        pairs = {_resolution(node): (node, last[_resolution(node)]) for node in ours if _resolution(node) in last}
        return list(pairs.values())

    def channels(self, node: Node) -> int:
        """How many channels an inner value has."""
        return spec(node).shape[channel_dim(len(spec(node).shape))]


def _inner_values(model: Model) -> Iterator[Node]:
    """The values within a model that have places and channels for each image, behind activations and additions."""
    images = fed_input(model.inputs).spec.shape[0]
    for node in model.module.graph.nodes:
        if node.op != "call_function" or family(node) is not Family.ELEMENTWISE:
            continue
        found = spec(node)
        if len(found.shape) in (3, 4) and found.shape[0] == images and found.dtype.is_floating_point:
            yield node


def _keys(nodes: list[Node]) -> list[Key]:
    """Tell nodes by their origin, their operator, and how many of both came before."""
    seen: Counter[tuple[str, object]] = Counter()
    keys: list[Key] = []
    for node in nodes:
        place = (origin(node), node.target)
        keys.append((*place, seen[place]))
        seen[place] += 1
    return keys


def channel_dim(dimensions: int) -> int:
    """Images have channels first, ``[N,C,H,W]``, and rows of tokens last, ``[N,T,C]``."""
    return 1 if dimensions == 4 else 2


def is_neck(node: Node) -> bool:
    """Whether all that is computed of the inputs behind a value is computed from this value alone."""
    moving, behind = set[Node](), {node}
    for other in node.graph.nodes:
        if other.op == "placeholder" or moving.intersection(other.all_input_nodes):
            moving.add(other)
        if behind.intersection(other.all_input_nodes):
            behind.add(other)
    read = {operand for other in behind - {node} for operand in other.all_input_nodes if other.op != "output"}
    return (read & moving) <= behind


def _resolution(node: Node) -> Shape:
    shape, channels = spec(node).shape, channel_dim(len(spec(node).shape))
    return (len(shape), *shape[1:channels], *shape[channels + 1 :])

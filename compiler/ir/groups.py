"""Groups: the calls that a backend shall make one kernel of, as `fuse-operators` marked them.

A member carries the name of its group, which is that of its first call, in ``node.meta["group"]``. Only the last
member's result is read outside the group, so a backend may compute the group as a whole at the place of its last
member, where every operand from outside is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Graph, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import calls, op_name, origin


@dataclass(frozen=True)
class Group:
    """Members in graph order; the first is the anchor, whose kernel the others extend."""

    name: str
    members: tuple[Node, ...]

    @property
    def anchor(self) -> Node:
        return self.members[0]

    @property
    def last(self) -> Node:
        return self.members[-1]

    @property
    def operands(self) -> tuple[Node, ...]:
        """What the group reads from outside, each once, in the order of reading."""
        inside = set(self.members)
        read = (operand for member in self.members for operand in member.all_input_nodes)
        return tuple(dict.fromkeys(operand for operand in read if operand not in inside))

    def __str__(self) -> str:
        return f"{self.name}: {' + '.join(map(op_name, self.members))}"


def groups(graph: Graph) -> list[Group]:
    """Return the groups that nodes are marked with, in the order of their anchors."""
    members: dict[str, list[Node]] = {}
    for node in calls(graph):
        if "group" in node.meta:
            members.setdefault(node.meta["group"], []).append(node)
    return [Group(name, tuple(nodes)) for name, nodes in members.items()]


def check_groups(graph: Graph) -> None:
    """Raise `CompileError` if a result inside a group is read outside it: a pass changed the graph after fusion."""
    for group in groups(graph):
        inside = set(group.members)
        for member in group.members[:-1]:
            outside = [user for user in member.users if user not in inside]
            if outside or not member.users:
                reader = f"'{outside[0].name}'" if outside else "nobody"
                raise CompileError(
                    f"the group '{group.name}' is broken at '{member.name}'",
                    where=origin(member),
                    why=f"its result is read by {reader} outside the group",
                    help="run fuse-operators after every pass that changes the graph",
                )

"""Mark the calls that one kernel can compute: an anchor and the element by element work on its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Graph, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import calls, family, is_widening, op_name, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.regions import next_exit

_ANCHORS = (Family.CONTRACTION, Family.POOLING, Family.REDUCTION, Family.NORMALISATION, Family.RESAMPLING)


@dataclass(frozen=True, kw_only=True)
class FuseOperators(Pass):
    """Mark each heavy call with the elementwise calls that follow it as one group, for one kernel.

    Convolutions, products, pools, reductions, normalisations and interpolations are the anchors. A group grows while
    one result leaves it and keeps its shape; bias, residual and gate come in from outside. Where an addition follows
    two anchors, it joins the later one. What is left of elementwise calls is grouped in chains.
    """

    name: ClassVar[str] = "fuse-operators"
    effect: ClassVar[Effect] = Effect.EXACT

    limit: int = option(32, "calls that one group may have")

    def __post_init__(self) -> None:
        if self.limit < 2:
            raise UsageError("limit must be at least 2")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        found = find_groups(model.module.graph, self.limit, outcome)
        mark(model.module.graph, found, outcome)
        return outcome


def find_groups(graph: Graph, limit: int, outcome: Outcome) -> Mapping[Node, Node]:
    """Return the first member of the group of every grouped call; report contractions that stay alone."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    first: dict[Node, Node] = {}
    for anchor in reversed(list(calls(graph))):
        if family(anchor) in _ANCHORS:
            members, reason = grow(anchor, order, first, limit)
            if len(members) > 1:
                first.update(dict.fromkeys(members, anchor))
            elif family(anchor) is Family.CONTRACTION:
                outcome.skip(anchor, reason)
    outcome.skipped.reverse()
    for start in calls(graph):
        if family(start) is Family.ELEMENTWISE and start not in first and not is_widening(start):
            members, _ = grow(start, order, first, limit)
            if len(members) > 1:
                first.update(dict.fromkeys(members, start))
    return first


def grow(start: Node, order: Mapping[Node, int], taken: Mapping[Node, Node], limit: int) -> tuple[list[Node], str]:
    """Return the group that begins at a node, itself included, and why it ends where it does."""
    members = [start]

    def refusal(node: Node) -> str | None:
        return check(node, start, taken)

    while True:
        region = next_exit(members[-1], order, refusal, limit - len(members))
        if isinstance(region, str):
            return members, region
        members.extend(region)


def check(node: Node, start: Node, taken: Mapping[Node, Node]) -> str | None:
    """Why a call cannot join the group that begins at ``start``; None if it can."""
    if node.op == "output":
        return "its result leaves the model"
    if is_widening(node):
        return f"its result is stored in a shorter type, which '{node.name}' reads as part of another kernel"
    if family(node) is not Family.ELEMENTWISE:
        return f"its result goes to '{node.name}' ({op_name(node)}), which is not elementwise"
    if node in taken:
        return f"'{node.name}' ({op_name(node)}) after it is in the group of '{taken[node].name}'"
    if spec(node).shape != spec(start).shape:
        return f"'{node.name}' ({op_name(node)}) after it broadcasts its result to another shape"
    return None


def mark(graph: Graph, first: Mapping[Node, Node], outcome: Outcome) -> None:
    """Write the groups into the nodes; a call counts as changed if its mark is not what it was."""
    for node in calls(graph):
        group = first[node].name if node in first else None
        if node.meta.get("group") != group:
            outcome.change(node)
        node.meta.pop("group", None)
        if group is not None:
            node.meta["group"] = group

"""Regions with one result: how far may a kernel grow forward before a second value would have to leave it?"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from torch.fx import Node


def next_exit(
    exit: Node, order: Mapping[Node, int], admits: Callable[[Node], str | None], limit: int
) -> list[Node] | str:
    """Return the fewest calls after ``exit`` that read it, up to one through which all that they compute flows.

    That one is the nearest postdominator of ``exit``: for ``x * sigmoid(x)`` the multiplication. ``order`` places
    nodes, ``admits`` says why a node must stay outside (None if it may come in), and no more than ``limit`` nodes are
    taken. A sentence comes back where there is no such region. Since every user of every result but the last is in the
    region, nothing outside it can both depend on it and be needed by it.
    """
    waiting = _readers([exit], order)
    if not waiting:
        return "nothing reads its result"
    region: list[Node] = []
    while waiting:
        _, _, node = heapq.heappop(waiting)
        if region and node is region[-1]:
            continue
        reason = admits(node)
        if reason is not None:
            return reason
        if len(region) == limit:
            return f"its result is read in more than {limit} places before they meet"
        region.append(node)
        if any(other is not node for _, _, other in waiting):
            if not node.users:
                return f"'{node.name}' reads it too, and nothing reads that"
            for reader in _readers([node], order):
                heapq.heappush(waiting, reader)
        else:
            break
    return region


def _readers(nodes: list[Node], order: Mapping[Node, int]) -> list[tuple[int, int, Node]]:
    """The users of nodes as a heap in graph order."""
    heap = [(order[user], 0, user) for node in nodes for user in node.users]
    heapq.heapify(heap)
    return heap

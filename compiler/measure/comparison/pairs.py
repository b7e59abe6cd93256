"""Which layer of one model is which of another: by where they came from, else by their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import calls, family, origin, spec
from lvc.compiler.ir.layers import contraction


@dataclass(frozen=True)
class Pair:
    """One layer in both models."""

    floating: Node
    quantised: Node


@dataclass(frozen=True)
class Pairing:
    """The pairs in the order of the floating-point model, and the layers of either that have no partner."""

    pairs: tuple[Pair, ...]
    only_floating: tuple[Node, ...]
    only_quantised: tuple[Node, ...]


def pair_layers(floating: Graph, quantised: Graph) -> Pairing:
    """Pair the contractions of two models.

    Layers of the same kind and output shape belong together if they came from the same place of the user's model and
    no other layer did; those that are left over are paired in order, as many as there can be.
    """
    ours, theirs = layers(floating), layers(quantised)
    found = _by_origin(ours, theirs)
    taken = set(found.values())
    found |= _in_order([n for n in ours if n not in found], [n for n in theirs if n not in taken])
    partners = set(found.values())
    return Pairing(
        tuple(Pair(node, found[node]) for node in ours if node in found),
        tuple(node for node in ours if node not in found),
        tuple(node for node in theirs if node not in partners),
    )


def layers(graph: Graph) -> list[Node]:
    """Return the contractions of a graph in order."""
    return [node for node in calls(graph) if family(node) is Family.CONTRACTION]


def kind(node: Node) -> str:
    """Return what a contraction computes, whatever the numbers that it multiplies: ``conv2d`` for lvc's own too."""
    return contraction(node).kind


def _signature(node: Node) -> tuple[str, tuple[int, ...]]:
    return kind(node), spec(node).shape


def _by_origin(ours: Iterable[Node], theirs: Iterable[Node]) -> dict[Node, Node]:
    known = _unique(theirs)
    pairs = {node: known[place] for place, node in _unique(ours).items() if place in known}
    return {ours: theirs for ours, theirs in pairs.items() if _signature(ours) == _signature(theirs)}


def _unique(nodes: Iterable[Node]) -> dict[str, Node]:
    """Return the layers by origin, without origins that several share."""
    nodes = list(nodes)
    count = Counter(map(origin, nodes))
    return {origin(node): node for node in nodes if count[origin(node)] == 1}


def _in_order(ours: Sequence[Node], theirs: Sequence[Node]) -> dict[Node, Node]:
    matcher = SequenceMatcher(None, [_signature(n) for n in ours], [_signature(n) for n in theirs], autojunk=False)
    return {
        ours[block.a + step]: theirs[block.b + step]
        for block in matcher.get_matching_blocks()
        for step in range(block.size)
    }

"""Choosing by name: patterns of the shell's kind over the names of nodes and of where they came from, or of groups."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch.fx import Node

from lvc.compiler.errors import UsageError, did_you_mean
from lvc.compiler.ir.graph import origin
from lvc.compiler.text import title

T = TypeVar("T", bound=Hashable)


def choose(nodes: Iterable[Node], patterns: Iterable[str]) -> dict[Node, str]:
    """Return the nodes that patterns match, each with the first that does; `UsageError` for one that matches none."""
    return choose_named({node: (node.name, origin(node), title(origin(node))) for node in nodes}, patterns)


def left_out(nodes: Iterable[Node], only: Sequence[str], skip: Sequence[str]) -> dict[Node, str]:
    """Return the nodes that the options ``only`` and ``skip`` leave out, each with the reason."""
    nodes = list(nodes)
    wanted, unwanted = choose(nodes, only), choose(nodes, skip)
    reasons = {node: f"only={','.join(only)} leaves it out" for node in nodes if only and node not in wanted}
    return reasons | {node: f"skip={pattern} leaves it out" for node, pattern in unwanted.items()}


def choose_named(names: Mapping[T, tuple[str, ...]], patterns: Iterable[str]) -> dict[T, str]:
    """As `choose`, for anything of which the names are given."""
    chosen: dict[T, str] = {}
    for pattern in patterns:
        found = [item for item, known in names.items() if any(fnmatchcase(name, pattern) for name in known)]
        if not found:
            raise UsageError(
                f"the pattern '{pattern}' matches nothing",
                help=_suggestion([name for known in names.values() for name in known], pattern),
            )
        for item in found:
            chosen.setdefault(item, pattern)
    return chosen


def _suggestion(names: Iterable[str], pattern: str) -> str:
    names = list(dict.fromkeys(names))
    suggestion = did_you_mean(pattern.strip("*"), names, most=2).rstrip()
    return suggestion or f"it could match {', '.join(names[:8]) or 'nothing'}" + (", ..." if len(names) > 8 else "")

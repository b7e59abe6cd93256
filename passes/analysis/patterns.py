"""Choosing calls by name: patterns of the shell's kind over the names of nodes and of where they came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.graph import origin


def choose(nodes: Iterable[Node], patterns: Iterable[str]) -> dict[Node, str]:
    """Return the nodes that patterns match, each with the first that does; `UsageError` for one that matches none."""
    nodes, chosen = list(nodes), dict[Node, str]()
    for pattern in patterns:
        found = [node for node in nodes if fnmatchcase(node.name, pattern) or fnmatchcase(origin(node), pattern)]
        if not found:
            raise UsageError(f"the pattern '{pattern}' matches nothing", help=_suggestion(nodes, pattern))
        for node in found:
            chosen.setdefault(node, pattern)
    return chosen


def _suggestion(nodes: list[Node], pattern: str) -> str:
    names = list(dict.fromkeys(name for node in nodes for name in (node.name, origin(node))))
    close = difflib.get_close_matches(pattern.strip("*"), names, n=2)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    return f"it could match {', '.join(names[:8]) or 'nothing'}" + (", ..." if len(names) > 8 else "")

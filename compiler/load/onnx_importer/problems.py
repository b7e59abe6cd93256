"""What cannot be compiled of a model, in few lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_NAMES = 3
_LINES = 15


@dataclass(frozen=True)
class Problem:
    """A node, or a stored tensor, and why it cannot be compiled."""

    name: str
    operator: str
    reason: str


def summary(problems: Sequence[Problem]) -> list[str]:
    """One line for each operator and reason, the most frequent first, with a few names."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in problems:
        groups[problem.operator, problem.reason].append(problem.name)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = [f"{_few(names)}: {operator} {reason}" for (operator, reason), names in ordered[:_LINES]]
    rest = ordered[_LINES:]
    if rest:
        operators = sorted({operator for (operator, _), _ in rest})
        lines.append(f"and {sum(len(names) for _, names in rest)} more, of {', '.join(operators)}")
    return lines


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more

"""What a student has in common with its teacher: terms of a loss, found by name and weighted freely.

The term `soft-labels` is the file `soft_labels.py` of `lvc.passes.distillation`; other packages add theirs through the
entry point `lvc.distillation`. A loss is written ``0.9*soft-labels{temperature=4}+0.1*labels``, in which ``labels`` is
the loss on labels.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.registry import Classes, Component
from lvc.passes.training.pairing import Pair

LABELS = "labels"
"""The term that is a loss on labels."""

_WEIGHTED = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)\s*\*)?\s*([A-Za-z_][\w.-]*(?:\{[^{}]*\})?)\s*")


@dataclass(frozen=True, kw_only=True)
class Term(Component):
    """Compares values of a student with those of its teacher. Fields are options, as for passes.

    ``nodes`` says which values, in pairs; they are then given in that order. ``parameters`` are trained along and
    thrown away: projections between widths, for example. A term without state needs none.
    """

    def of(self, pair: Pair) -> Term:
        """Return the term for a pair of models: itself, unless it has to know more than values tell."""
        return self

    @abstractmethod
    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        """Return the pairs of nodes of student and teacher to compare; `UsageError` if there is nothing to compare."""

    def parameters(self, pair: Pair) -> Mapping[str, torch.nn.Parameter]:
        """Return parameters of the term's own by name."""
        return {}

    @abstractmethod
    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return how far student and teacher are apart, the mean over the images."""


TERMS: Classes[Term] = Classes("lvc.passes.training.term:Term", "lvc.passes.distillation", "term of distillation")


@dataclass(frozen=True)
class Weighted:
    """A term, or None for the loss on labels, and its weight."""

    weight: float
    term: Term | None

    @property
    def name(self) -> str:
        return self.term.name if self.term else LABELS


def parse_terms(text: str) -> tuple[Weighted, ...]:
    """Read ``WEIGHT*TERM{option=value}+...``; a term without a weight has 1. `UsageError` for anything else."""
    found: list[Weighted] = []
    at = 0
    while at < len(text) or not found:
        match = _WEIGHTED.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != "+") or match.end() + 1 == len(text):
            raise UsageError(
                f"'{text}' is no sum of terms", help="write it as 0.9*soft-labels{temperature=4}+0.1*labels"
            )
        weight = float(match[1]) if match[1] else 1.0
        found.append(Weighted(weight, None if match[2] == LABELS else TERMS.parse(match[2])))
        at = match.end() + 1
    return tuple(found)

"""How much of a model's work runs in integers, counted from its graph, and how much must (``--require``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import calls, family, origin, spec
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.catalogue import TO_INTEGERS
from lvc.compiler.pipeline.passes import Skip
from lvc.compiler.text import si, title

_SHOWN = 5


@dataclass(frozen=True)
class Coverage:
    """The layers that run in integers, and those that do not."""

    integers: tuple[Node, ...]
    rest: tuple[Node, ...]

    @classmethod
    def of(cls, model: Model, *, simulated: bool = False) -> Coverage:
        """Count the contractions of a graph; fake-quantised ones too if ``simulated``, for who runs them so."""
        layers = [node for node in calls(model.module.graph) if macs(node)]
        integers = {n for n in layers if n.target in integer.OPERATORS or (simulated and _is_simulated(n))}
        return cls(tuple(n for n in layers if n in integers), tuple(n for n in layers if n not in integers))

    @property
    def share(self) -> float:
        """The share of the multiply-accumulates that run in integers; 0 if there are none."""
        return _work(self.integers) / self.total if self.total else 0.0

    @property
    def total(self) -> int:
        return _work(self.integers) + _work(self.rest)


@dataclass(frozen=True)
class Requirement:
    """The least share of the multiply-accumulates that must run in integers."""

    share: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``int8=0.9``; `UsageError` for anything else."""
        name, _, number = text.partition("=")
        if name != "int8":
            raise UsageError(
                f"'--require {text}' asks for nothing that is known", help="for example --require int8=0.9"
            )
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise UsageError(f"'{number}' is not a share above 0 and up to 1", help="for example --require int8=0.9")
        return cls(share)

    def check(self, model: Model, skips: Iterable[Skip], *, simulated: bool = False) -> None:
        """Raise `CheckError` with the largest layers that do not run in integers, and why, if they are too many.

        ``skips`` are what the passes said of the places that they left alone; of one place the first is shown.
        """
        coverage = Coverage.of(model, simulated=simulated)
        if coverage.share >= self.share:
            return
        if not coverage.total:
            raise CheckError(
                f"nothing runs in integers, and {_percent(self.share)} are required",
                why="the model has no layer that multiplies and accumulates",
                help="build it without --require",
            )
        reasons = {skip.node: skip.reason for skip in reversed(list(skips))}
        largest = sorted(coverage.rest, key=lambda node: -macs(node))
        lines = [_line(node, coverage.total, reasons, simulated=simulated) for node in largest[:_SHOWN]]
        if len(largest) > _SHOWN:
            lines.append(f"and {len(largest) - _SHOWN} more")
        raise CheckError(
            f"{_percent(coverage.share)} of {si(coverage.total, 'MACs')} run in integers, "
            f"and {_percent(self.share)} are required",
            where=f"{len(coverage.rest)} of {len(coverage.rest) + len(coverage.integers)} layers are in floating point",
            why="\n".join(lines),
            help="--explain without --require shows every place; nothing was written",
        )


def _work(nodes: Iterable[Node]) -> int:
    return sum(map(macs, nodes))


def _line(node: Node, total: int, reasons: Mapping[str, str], *, simulated: bool) -> str:
    if _is_simulated(node) and not simulated:
        reason = f"its integers are only simulated; put {TO_INTEGERS} at the end of the pipeline"
    else:
        reason = "no pass quantised it"
    return f"{title(origin(node))} ({node.name}), {_percent(macs(node) / total)}: {reasons.get(node.name, reason)}"


def _is_simulated(node: Node) -> bool:
    """Whether both factors of a contraction are quantised."""
    return spec(node).dtype is torch.float32 and all(map(_is_quantised, factors(node)))


def _is_quantised(value: object) -> bool:
    while isinstance(value, Node) and family(value) is Family.MOVEMENT:
        value = value.all_input_nodes[0]
    return isinstance(value, Node) and family(value) is Family.QUANTISATION


def _percent(share: float) -> str:
    """A share rounded down, so that what misses a bound never looks like it."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:g} %"

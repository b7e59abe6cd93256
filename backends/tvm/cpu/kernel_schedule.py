"""The schedule of a kernel that states its own loop nest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call


@dataclass(frozen=True)
class KernelSchedule:
    """The schedule of a kernel for a problem, written by ``function`` with ``knobs``; None for those of its rule.

    ``largest_tile`` is how far minimal filtering may go in place of a plain sum, 0 where it may not.
    """

    function: Callable[[Any, Any, Vector, Any], None]
    problem: Any
    knobs: Any = None
    largest_tile: int = 0

    def __call__(self, sch: Any, vector: Vector) -> None:
        self.function(sch, self.problem, vector, self.knobs)

    def __str__(self) -> str:
        return f"{self.function.__module__} {self.problem} {self.knobs}"

    @property
    def structure(self) -> str:
        """What it computes, and by which algorithms it may, whatever its knobs are."""
        return f"{self.function.__module__} {self.problem} {self.largest_tile}"

    @property
    def kernel(self) -> Any:
        """The module of its function, with ``choose_knobs``, the rule, and ``space``, what else the knobs may be."""
        return sys.modules[self.function.__module__]


def anchored_plain(call: Call, result: Any, shape: tuple[int, ...], schedule: KernelSchedule) -> Anchor:
    """A kernel that writes its plain result under a shape of its own."""
    total = reshape_array(call.scope, call.scope.leaf(result, shape, PLAIN), call.shape)
    return Anchor(total, schedule, shape)

"""The schedule of a kernel that states its own loop nest."""

from __future__ import annotations

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
    """The schedule of a kernel for a problem."""

    function: Callable[[Any, Any, Vector], None]
    problem: Any

    def __call__(self, sch: Any, vector: Vector) -> None:
        self.function(sch, self.problem, vector)

    def __str__(self) -> str:
        return f"{self.function.__module__} {self.problem}"


def anchored_plain(call: Call, result: Any, shape: tuple[int, ...], schedule: KernelSchedule) -> Anchor:
    """A kernel that writes its plain result under a shape of its own."""
    total = reshape_array(call.scope, call.scope.leaf(result, shape, PLAIN), call.shape)
    return Anchor(total, schedule, shape)

"""The schedule of a kernel that states its own launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.gpu.launch import Launches


@dataclass(frozen=True)
class KernelSchedule:
    """The launches of a kernel for a problem, written by ``function``."""

    function: Callable[[Any, Any, Launches], None]
    problem: Any

    def __call__(self, sch: Any, launches: Launches) -> None:
        self.function(sch, self.problem, launches)

    def __str__(self) -> str:
        return f"{self.function.__module__} {self.problem}"

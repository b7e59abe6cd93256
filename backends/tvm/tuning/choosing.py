"""Kernels made in other ways than by their rule, while a model is lowered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lvc.backends.tvm.device import CodeGenerator, NoSuchWay
from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.kernel_keys import structure_key
from lvc.compiler.text import counted
from lvc.compiler.tuning.database import Place, Record
from lvc.compiler.tuning.kernels import Choice


@dataclass(frozen=True)
class Chosen:
    """Makes kernels as was chosen by their keys."""

    generator: CodeGenerator
    choices: Mapping[str, Choice]

    def choose(self, name: str, kernel: Kernel, remake: Callable[[Choice], Kernel]) -> Kernel:
        ways = self.generator.ways(kernel.schedule)
        choice = self.choices.get(structure_key(kernel.function, ways.structure)) if ways else None
        return remake(choice) if choice else kernel


@dataclass
class Recorded:
    """Makes kernels by the records of a database that are of this processor and this version of the code.

    ``taken`` tells which kernels it made so, and `remarks` why it did not make others so.
    """

    generator: CodeGenerator
    records: Mapping[Place, Record]
    processor: str
    version: str
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def choose(self, name: str, kernel: Kernel, remake: Callable[[Choice], Kernel]) -> Kernel:
        ways = self.generator.ways(kernel.schedule)
        if ways is None:
            return kernel
        key = structure_key(kernel.function, ways.structure)
        record = self.records.get(Place(key, self.processor, self.version))
        if record is None:
            self.refused.update(self._others(key))
            return kernel
        try:
            made = remake(record.choice)
        except NoSuchWay as error:
            self.refused[f"cannot be made: {error}"] += 1
            return kernel
        self.taken.append({"kernel": name, "choice": json.loads(record.choice), "gain": round(1 / record.share, 3)})
        return made

    def remarks(self) -> list[str]:
        """How many kernels were made by records, and why others were not."""
        taken = f"tuning: {counted(len(self.taken), 'kernel')} made by records"
        left = (f"the records of {counted(n, 'kernel')} were left out: {why}" for why, n in self.refused.items())
        return [taken, *(f"tuning: {line}" for line in left)]

    def _others(self, key: str) -> set[str]:
        """Why there are records of a kernel, and none that holds here."""
        places = [place for place in self.records if place.kernel == key]
        if any(place.processor == self.processor for place in places):
            return {"they were measured with another version of lvc"}
        others = sorted({place.processor for place in places})
        return {f"they were measured on another processor, {', '.join(others)}"} if others else set()

"""Kernels made in other ways than by their rule, while a model is lowered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import lvc
from lvc.backends.tvm.device import CodeGenerator, NoSuchWay
from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.kernel_keys import structure_key
from lvc.backends.tvm.tuning.shipped import Shipped
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
    """Makes kernels by the records of a database that are of this processor and this version of the code, and where the
    database knows nothing of a kernel by those that are ``shipped``.

    ``tuned`` are the kernels that were tuned here, with a record or without. ``taken`` tells which kernels it made so,
    and `remarks` why it did not make others so.
    """

    generator: CodeGenerator
    records: Mapping[Place, Record]
    processor: str
    version: str
    shipped: Mapping[Place, Shipped] = field(default_factory=dict)
    tuned: Collection[Place] = ()
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def choose(self, name: str, kernel: Kernel, remake: Callable[[Choice], Kernel]) -> Kernel:
        ways = self.generator.ways(kernel.schedule)
        if ways is None:
            return kernel
        key = structure_key(kernel.function, ways.structure)
        place = Place(key, self.processor, self.version)
        record = self.records.get(place) or (None if place in self.tuned else self._shipped(key, ways.rule))
        if record is None:
            self.refused.update(() if place in self.tuned else self._others(key))
            return kernel
        try:
            made = remake(record.choice)
        except NoSuchWay as error:
            self.refused[f"cannot be made: {error}"] += 1
            return kernel
        taken = {"kernel": name, "choice": json.loads(record.choice), "gain": round(1 / record.share, 3)}
        self.taken.append({**taken, "shipped": True} if isinstance(record, Shipped) else taken)
        return made

    def remarks(self) -> list[str]:
        """How many kernels were made by records, and why others were not."""
        taken = f"tuning: {counted(len(self.taken), 'kernel')} made by records"
        left = (f"the records of {counted(n, 'kernel')} were left out: {why}" for why, n in self.refused.items())
        return [taken, *(f"tuning: {line}" for line in left)]

    def _shipped(self, key: str, rule: Choice) -> Shipped | None:
        record = self.shipped.get(Place(key, self.processor, lvc.__version__))
        return record if record and record.rule == rule else None

    def _others(self, key: str) -> set[str]:
        """Why there are records of a kernel, and none that holds here."""
        if Place(key, self.processor, lvc.__version__) in self.shipped:
            return {"they come with lvc, whose rule has changed since"}
        places = [place for place in (*self.records, *self.shipped) if place.kernel == key]
        if any(place.processor == self.processor for place in places):
            return {"they were measured with another version of lvc"}
        others = sorted({place.processor for place in places})
        return {f"they were measured on another processor, {', '.join(others)}"} if others else set()

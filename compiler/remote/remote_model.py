"""A model on a board, which is called as one here is; what it gives is held against an oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.data.samples import numpy_dtype
from lvc.compiler.ir.signature import signature_of
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.measure.device import Oracle
from lvc.compiler.measure.timing import CLOCKS
from lvc.compiler.remote.message import Malformed, Message, typed
from lvc.compiler.remote.oracle import SameCode

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.bench.steps import StepTime
    from lvc.compiler.remote.board import Board

_FIRST, _SHARE = 4, 1 / 16
"""Answers that are checked even where that is slow: the first few, and some of the rest, which no board can foresee."""

_random = random.SystemRandom()


@dataclass
class RemoteModel:
    """An artefact that a board has; ``content`` is its file, to be sent again. Without an oracle nothing is checked.
    Models of one file that are another ``copy`` lie at other places in the board's memory."""

    board: Board
    artefact: Artefact
    content: bytes
    digest: str
    threads: int | None
    oracle: Oracle | None
    copy: int = 0
    calls: int = 0

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        answer = self.board.execute("run", [self], inputs, {})
        self.check(inputs, answer.arrays)
        return tuple(answer.arrays)

    def time_steps(
        self, inputs: Sequence[np.ndarray], repeats: int = 10, clock: Callable[[], float] = CLOCKS["wall"]
    ) -> list[StepTime]:
        """What `lvc.compiler.bench.steps.TimesSteps` promises, on the board."""
        name = next(name for name, read in CLOCKS.items() if read is clock)
        answer = self.board.execute("steps", [self], inputs, {"repeats": repeats, "clock": name})
        self.check(inputs, answer.arrays)
        try:
            return _steps(answer)
        except Malformed as error:
            self.board.retire("answers nonsense", error.why)

    def peak_flops(self) -> float:
        """Not known of a board."""
        return 0.0

    def check(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Retire the board if outputs are not those of this model, or wrong as far as the oracle is asked."""
        signature = signature_of(self.artefact.signatures, [TensorSpec.of_array(array) for array in inputs])
        wanted = [(value.spec.shape, numpy_dtype(value)) for value in signature.outputs]
        if [(array.shape, array.dtype) for array in outputs] != wanted:
            found = ", ".join(f"{array.dtype.name}{list(array.shape)}" for array in outputs) or "nothing"
            self.board.retire("answers outputs of another model", f"they are {found}")
        self.calls += 1
        checks = self.board.checks
        checks.answers += 1
        if self.oracle is None or not self._is_drawn():
            return
        if fault := self.oracle.fault(inputs, outputs):
            self.board.retire("answers wrong numbers", fault)
        checks.checked += 1
        checks.by[self.oracle.name] = None
        checks.largest = max(checks.largest, self.oracle.largest)

    def _is_drawn(self) -> bool:
        is_slow = isinstance(self.oracle, SameCode) and self.oracle.is_slow
        return not is_slow or self.calls <= _FIRST or _random.random() < _SHARE


def _steps(answer: Message) -> list[StepTime]:
    """The times of an answer; `Malformed` for what is none."""
    found: list[StepTime] = []
    for item in answer.get("steps", list):
        row = typed(list, item, "steps")
        if len(row) != 3:
            raise Malformed("'steps' has other rows than triples")
        nodes = [typed(str, node, "steps") for node in typed(list, row[1], "steps")]
        seconds = typed(float, row[2], "steps")
        if not 0 < seconds < 1e6:
            raise Malformed("a kernel takes no time, or more than there is")
        found.append((typed(str, row[0], "steps"), nodes, seconds))
    return found

"""What a verification found, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from lvc.compiler.text import duration


@dataclass
class Verified:
    """One comparison: ``against`` computed the same ``inputs`` input sets, and was at most ``difference`` away.

    ``emulated`` says whether an emulator ran it, ``where`` on which board it ran if on one, ``skipped`` why there was
    no comparison, ``explained`` what a difference above the bound comes from; ``seconds`` is what it cost, and on
    ``empty`` of the inputs all lists of the model were empty.
    """

    against: str = ""
    difference: float | None = None
    inputs: int = 0
    seconds: float = 0.0
    skipped: str = ""
    emulated: bool = False
    where: str = ""
    explained: str = ""
    empty: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds that a block takes."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds = round(self.seconds + perf_counter() - started, 3)

    def take(self, difference: float, explanation: str, *, finds_nothing: bool = False) -> None:
        """Count one more input set; ``explanation`` is empty for a difference within the bound."""
        self.inputs += 1
        self.empty += finds_nothing
        self.difference = max(difference, self.difference or 0.0)
        self.explained = self.explained or explanation

    def __str__(self) -> str:
        if self.skipped:
            return f"not verified: {self.skipped}"
        far = f"at most {self.difference:.1e} from {self.against}, relative"
        if self.explained:
            far += f", explained by {self.explained}"
        apart = far if self.difference else f"equal to {self.against}"
        if self.empty == self.inputs > 0:
            apart += ", which finds nothing in these inputs"
        return f"{apart} ({', '.join([*self._how(), duration(self.seconds)])})"

    def _how(self) -> list[str]:
        return [text for text in (self.where, "emulated" if self.emulated else "") if text]

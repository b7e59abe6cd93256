"""How much tuning may cost: so many trials, or so much time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lvc.compiler.errors import UsageError
from lvc.compiler.text import counted, duration

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smh])")
_MOST_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Budget:
    """What a model's tuning may cost in all, over however many runs; one of the two is None."""

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a time such as ``90s``, ``10m`` or ``1.5h``; `UsageError` for anything else."""
        found = _TIME.fullmatch(text)
        seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
        if not 0 < seconds <= _MOST_SECONDS:
            raise UsageError(f"'{text}' is no time to tune for", help="such as 90s, 10m or 1.5h, and at most 720h")
        return cls(seconds=seconds)

    def left(self, trials: int, seconds: float) -> Budget:
        """What is left of it when so much has been spent; nothing below zero."""
        if self.trials is not None:
            return Budget(trials=max(0, self.trials - trials))
        assert self.seconds is not None
        return Budget(seconds=max(0.0, self.seconds - seconds))

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return not (self.trials or self.seconds)

    def __str__(self) -> str:
        return counted(self.trials, "trial") if self.trials is not None else duration(self.seconds or 0.0)

"""How the learning rate changes over training: the share of the largest one at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_DROPS, _DROP = (0.5, 0.75), 0.1
_RISE, _START, _END = 0.3, 1 / 25, 1e-4


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    """Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts."""
    return (1 + math.cos(math.pi * progress)) / 2


def _step(progress: float) -> float:
    """A tenth after half of the steps, and a hundredth after three quarters, as He et al. trained residual networks."""
    return float(_DROP ** sum(progress >= drop for drop in _DROPS))


def _one_cycle(progress: float) -> float:
    """Up from a 25th over the first 30 %, and down to a 10,000th: Smith and Topin, "Super-convergence", 2018."""
    if progress < _RISE:
        return _START + (1 - _START) * (1 - math.cos(math.pi * progress / _RISE)) / 2
    return _END + (1 - _END) * _cosine((progress - _RISE) / (1 - _RISE))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "step": _step,
    "one-cycle": _one_cycle,
    "constant": _constant,
}
"""The share of the largest learning rate by how much of the training is done, 0 to 1."""


@dataclass(frozen=True)
class Schedule:
    """A schedule over ``steps``; the rate rises in a line over the first share ``warmup`` of them."""

    name: str
    steps: int
    warmup: float

    def __call__(self, step: int) -> float:
        """Return the share of the largest rate for a step, counted from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        return SCHEDULES[self.name]((step - rising) / max(1, self.steps - rising))

"""In which precision a step of training is fastest here: tried before training begins.

The choice has to be the same whenever it is made on one machine, for it changes the weights that come out. So a mode is
chosen only if it is faster by more than times of one machine differ by; images always have their channels last, which
convolutions of CPUs are written for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_ROUNDS, _SECONDS = 3, 1.0
"""Each mode has so many turns at least, and more while all together took less than so many seconds."""

_GAIN = 1.25  # with a unit for bfloat16 steps are 1.4 times as fast and more, without one they are slower


@dataclass(frozen=True)
class Mode:
    """How steps are computed: matrix products in bfloat16 or float32, and images with channels last or planes."""

    precision: str
    channels_last: bool

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context in which the forward pass runs."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def __str__(self) -> str:
        return f"{self.precision}, {'channels last' if self.channels_last else 'channels first'}"


PLAIN = Mode("fp32", False)


def fastest(modes: list[Mode], step: Callable[[Mode], object]) -> tuple[Mode, dict[Mode, float]]:
    """Return the mode whose steps are fastest, and the seconds of each; the first one unless another is clearly so.

    The modes take turns, and each counts with its best round.
    """
    seconds = dict.fromkeys(modes, float("inf"))
    for mode in modes:
        step(mode)
    turns, began = 0, time.perf_counter()
    while turns < _ROUNDS or time.perf_counter() - began < _SECONDS:
        turns += 1
        for mode in modes:
            started = time.perf_counter()
            step(mode)
            seconds[mode] = min(seconds[mode], time.perf_counter() - started)
    chosen = modes[0]
    for mode in modes[1:]:
        if seconds[mode] * _GAIN < seconds[chosen]:
            chosen = mode
    return chosen, seconds

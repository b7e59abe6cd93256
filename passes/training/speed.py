"""In which precision and memory format a step of training is fastest here: tried before training begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_ROUNDS = 3
_GAIN = 1.05  # a mode has to be so much faster than those before it


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
    for turn in range(_ROUNDS + 1):
        for mode in modes:
            began = time.perf_counter()
            step(mode)
            if turn:
                seconds[mode] = min(seconds[mode], time.perf_counter() - began)
    chosen = modes[0]
    for mode in modes[1:]:
        if seconds[mode] * _GAIN < seconds[chosen]:
            chosen = mode
    return chosen, seconds

"""In which precision steps of training are computed.

The choice changes the weights that come out, so it must be the same whenever it is made on one machine: the processor
makes it, by whether it multiplies bfloat16 itself, and no stopwatch, which other programs can mislead. What it gains is
measured before training begins, and told. Images have their channels last, which convolutions of CPUs are written for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

_ROUNDS = 3
_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of what torch says of a processor: instructions that multiply bfloat16."""


@dataclass(frozen=True)
class Mode:
    """How steps are computed: matrix products in bfloat16 or float32, images with channels last or planes, and by which
    kind of device."""

    precision: str
    channels_last: bool
    device: str = "cpu"

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context in which the forward pass runs."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    def __str__(self) -> str:
        where = "" if self.device == "cpu" else f", on {self.device}"
        return f"{self.precision}, {'channels last' if self.channels_last else 'channels first'}{where}"


PLAIN = Mode("fp32", False)


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether the processor, or the GPU, multiplies bfloat16 itself, so that it is faster than float32."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return any(known.get(unit, False) for unit in _UNITS)


def seconds_of(modes: Sequence[Mode], step: Callable[[Mode], object]) -> dict[Mode, float]:
    """Return the seconds of a step in each mode. They take turns, and each counts with its best round."""
    seconds = dict.fromkeys(modes, float("inf"))
    for turn in range(_ROUNDS + 1):
        for mode in modes:
            began = time.perf_counter()
            step(mode)
            if turn:
                seconds[mode] = min(seconds[mode], time.perf_counter() - began)
    return seconds

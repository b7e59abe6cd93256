"""The mean of the squared differences from numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from lvc.compiler.data.access import Target
from lvc.passes.training.loss import Loss, check_arrays


@dataclass(frozen=True, kw_only=True)
class MeanSquares(Loss):
    """The mean of the squared differences from numbers; targets have the shape of the first output."""

    name: ClassVar[str] = "mean-squares"

    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(outputs[0], targets.float())

    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        check_arrays(shape[1:], targets)

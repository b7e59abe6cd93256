"""The cross entropy of properties that each hold or do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from lvc.compiler.data.access import Target
from lvc.passes.training.loss import Loss, check_arrays


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """The cross entropy of properties that each hold or do not.

    Scores are the first output, before a sigmoid; targets have its shape, and are 0, 1 or between.
    """

    name: ClassVar[str] = "binary-cross-entropy"

    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(outputs[0], targets.float())

    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        check_arrays(shape[1:], targets)

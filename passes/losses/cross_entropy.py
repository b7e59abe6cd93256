"""The cross entropy of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from lvc.compiler.data.access import Target
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.passes import option
from lvc.passes.training.loss import Loss, check_classes


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """The cross entropy of classes.

    Scores are the first output, ``[N,classes]``; targets are classes ``i64[N]``, or shares ``f32[N,classes]`` of mixed
    images. With ``smoothing`` that share of each target is spread over all classes: Szegedy et al., "Rethinking the
    Inception architecture", 2016, section 7.
    """

    name: ClassVar[str] = "cross-entropy"

    smoothing: float = option(0.0, "the share of a label that is spread over all classes")

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UsageError(f"smoothing must be from 0 to below 1, not {self.smoothing:g}")

    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs[0].flatten(1), targets, label_smoothing=self.smoothing)

    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        if not is_class_scores(shape):
            raise UsageError(
                f"the first output, {list(shape)}, holds no scores of classes, which the cross entropy is of",
                help="give another loss=, or distil the model from itself",
            )
        check_classes(shape[1], targets)

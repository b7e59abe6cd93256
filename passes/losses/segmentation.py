"""The cross entropy of classes at every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from lvc.compiler.data.access import Target
from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.training.loss import Loss, check_known


@dataclass(frozen=True, kw_only=True)
class Segmentation(Loss):
    """The cross entropy of classes at every pixel.

    Scores are the first output, ``[N,classes,H,W]``; targets are classes ``[N,H,W]``. Where the scores have another
    size they are brought to that of the targets, as they are for use.
    """

    name: ClassVar[str] = "segmentation"

    ignore: int = option(255, "the class of pixels that do not count")

    @property
    def outside(self) -> int:
        return self.ignore

    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        scores, wanted = outputs[0], targets.long()
        if scores.shape[2:] != wanted.shape[1:]:
            scores = functional.interpolate(scores, wanted.shape[1:], mode="bilinear", align_corners=False)
        if bool((wanted == self.ignore).all()):
            return scores.sum() * 0
        return functional.cross_entropy(scores, wanted, ignore_index=self.ignore)

    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        check_known(targets)
        if len(shape) != 4:
            raise UsageError(f"the first output, {list(shape)}, holds no scores of classes for each pixel")
        for target in targets:
            if not isinstance(target, np.ndarray) or target.ndim != 2 or target.dtype.kind not in "iu":
                raise UsageError("a label is no mask of classes", help="give integers [N,H,W] as y of a .npz file")
            classes = target[target != self.ignore]
            if classes.size and int(classes.max()) >= shape[1]:
                what = f"a pixel has class {int(classes.max())}, and the model knows {shape[1]} classes"
                raise UsageError(what, help=f"pixels that do not count have the class ignore={self.ignore}")

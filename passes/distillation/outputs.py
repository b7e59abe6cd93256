"""All outputs, each compared as what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.errors import UsageError
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class Outputs(Term):
    """All outputs, each compared as what it is.

    Scores of classes ``[N,classes]`` by the divergence of their probabilities; every other output, such as boxes or
    maps, by the smooth L1 distance (Girshick, "Fast R-CNN", 2015, equation 3), each channel relative to its spread
    over the batch. The mean over the outputs that are numbers.
    """

    name: ClassVar[str] = "outputs"

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        floats = [
            nodes
            for nodes, output in zip(pair.outputs, pair.student.outputs, strict=True)
            if output.spec.dtype.is_floating_point
        ]
        if not floats:
            raise UsageError("no output is in floating point, so none can be learnt from", help="compare features")
        return floats

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        return torch.stack([_apart(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean()


def _apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    if teacher.ndim == 2 and teacher.shape[1] > 1:
        ours, theirs = functional.log_softmax(student, 1), functional.log_softmax(teacher, 1)
        return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    spread = _spread(teacher)
    return functional.smooth_l1_loss(student / spread, teacher / spread)


def _spread(value: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each channel, which images ``[N,C,H,W]`` have second and all else last."""
    channels = 1 if value.ndim == 4 else value.ndim - 1
    others = [dim for dim in range(value.ndim) if dim != channels] or [0]
    found = value.std(others, keepdim=True, correction=0)
    return torch.where(found > 0, found, torch.ones_like(found))

"""Inner values, brought to the teacher's width by a projection that is learnt and thrown away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class Features(Term):
    """Inner values, brought to the teacher's width by a projection that is learnt and thrown away.

    The squared difference relative to the spread of the teacher's values, the mean over the places that are compared.
    Where the widths are the same there is no projection. Source: Romero et al., "FitNets", 2015, equation 3.
    """

    name: ClassVar[str] = "features"

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return pair.features

    def parameters(self, pair: Pair) -> Mapping[str, torch.nn.Parameter]:
        widths = [(pair.channels(ours), pair.channels(theirs)) for ours, theirs in pair.features]
        return {
            str(place): torch.nn.Parameter(torch.eye(theirs, ours))
            for place, (ours, theirs) in enumerate(widths)
            if ours != theirs
        }

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        errors = [
            (_projected(ours, own.get(str(place))) - theirs).square().mean() / theirs.var().clamp(min=1e-12)
            for place, (ours, theirs) in enumerate(zip(student, teacher, strict=True))
        ]
        return torch.stack(errors).mean()


def _projected(value: torch.Tensor, matrix: torch.Tensor | None) -> torch.Tensor:
    """Apply a matrix to the channels of images ``[N,C,H,W]`` or rows ``[N,T,C]``."""
    if matrix is None:
        return value
    return torch.nn.functional.conv2d(value, matrix[:, :, None, None]) if value.ndim == 4 else value @ matrix.T

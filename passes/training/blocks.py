"""A student cut into blocks, each of which is trained by itself to give what the teacher's block gives.

A block ends where a single value leads on: behind a residual block, or a stage. It reads what the block before gives by
now, so that it makes up for what that could not do, and no gradient passes from one block to another: all of them are
trained at once, each towards a near aim, for which few images are enough. A pruned student's values have fewer channels
than its teacher's; each belongs to that channel of the teacher's with which it goes along.

Sources: Li et al., "Blockwisely supervised neural architecture search with knowledge distillation", 2020, section 3.2;
Li et al., "BRECQ: pushing the limit of post-training quantization by block reconstruction", 2021, section 3.3, for
blocks and for their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.fx import Node

from lvc.compiler.data.access import Access
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import spec
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.passes.training.form import watching
from lvc.passes.training.objective import Seen
from lvc.passes.training.pairing import Pair, channel_dim, is_neck
from lvc.passes.training.teaching import ByTeacher
from lvc.passes.training.term import Term, Weighted

_TINY = 1e-12
_MATCHED = 4
"""Batches by which channels are matched."""


@dataclass(frozen=True)
class Ends:
    """Where blocks end: pairs of nodes of student and teacher, and for each the teacher's channels that the student's
    belong to, ``i64[channels]``; None where both have the same."""

    nodes: tuple[tuple[Node, Node], ...]
    partners: tuple[torch.Tensor | None, ...]

    @classmethod
    def of(cls, pair: Pair, samples: Access, images: int) -> Ends:
        """Find the ends; ``samples`` tell which channels go along. `UsageError` if there is nowhere to cut."""
        necks = {ours: theirs for ours, theirs in pair.by_origin if is_neck(ours)}
        nodes = tuple((ours, necks[ours]) for ours in necks if not necks.keys() >= ours.users.keys()) or pair.features
        if any(pair.channels(ours) > pair.channels(theirs) for ours, theirs in nodes):
            raise UsageError(
                "a block of the student has more channels than the teacher's",
                help="train it as a whole: distil{losses=features}",
            )
        return cls(nodes, _partners(pair, nodes, samples, images))


@dataclass(frozen=True, kw_only=True)
class Blocks(Term):
    """What each block gives: the squared difference relative to the spread of the teacher's values, the sum of all."""

    name: ClassVar[str] = "blocks"

    ends: Ends

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return self.ends.nodes

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        errors = []
        for ours, theirs, partners in zip(student, teacher, self.ends.partners, strict=True):
            wanted = (
                theirs
                if partners is None
                else theirs.index_select(channel_dim(theirs.ndim), partners.to(theirs.device))
            )
            errors.append((ours - wanted).square().mean() / wanted.var().clamp(min=_TINY))
        return torch.stack(errors).sum()


class ByBlocks(ByTeacher):
    """The sum of what all blocks are apart, of which the last ends at the outputs and is compared by a term.

    A model is judged by that term alone: what its blocks give is no end in itself, and few images are right or wrong.
    """

    knows_labels = False

    def __init__(self, pair: Pair, ends: Ends, last: Term, images: int, ranks: Ranks = ALONE) -> None:
        terms = Weighted(1.0, Blocks(ends=ends)), Weighted(1.0, last)
        super().__init__(pair, terms, None, (), images, ranks=ranks)
        self.apart = tuple(ours for ours, _ in ends.nodes)

    def judged(self, seen: Seen) -> Mapping[str, torch.Tensor]:
        return {name: part for name, part in self.losses(seen).items() if name != Blocks.name}


@torch.no_grad()
def _partners(
    pair: Pair, nodes: Sequence[tuple[Node, Node]], samples: Access, images: int
) -> tuple[torch.Tensor | None, ...]:
    """Match the channels of each pair of nodes that have not the same."""
    narrower = [place for place, (ours, theirs) in enumerate(nodes) if spec(ours).shape[1:] != spec(theirs).shape[1:]]
    found: list[torch.Tensor | None] = [None] * len(nodes)
    if not narrower:
        return tuple(found)
    runs = [
        watching(model.with_batch(images), [nodes[place][which] for place in narrower])
        for which, model in enumerate((pair.student, pair.teacher))
    ]
    count = len(narrower)
    products = [torch.zeros(()) for _ in narrower]
    for inputs in _batches(samples, images):
        student, teacher = (run(inputs)[-count:] for run in runs)
        for at, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            products[at] = products[at] + _standard(ours) @ _standard(theirs).T
    for place, product in zip(narrower, products, strict=True):
        found[place] = matched(product)
    return tuple(found)


def matched(likeness: torch.Tensor) -> torch.Tensor:
    """Return a column for each row of ``f32[rows,columns]``, each column once: the most alike first."""
    left = likeness.clone()
    chosen = torch.zeros(len(left), dtype=torch.int64)
    for _ in range(len(left)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        chosen[row] = column
        left[row], left[:, column] = -torch.inf, -torch.inf
    return chosen


def _standard(value: torch.Tensor) -> torch.Tensor:
    """The channels of a value as rows of mean 0 and length 1; those that are constant stay 0."""
    rows = value.movedim(channel_dim(value.ndim), 0).flatten(1).float()
    rows = rows - rows.mean(1, keepdim=True)
    return torch.nn.functional.normalize(rows, dim=1, eps=_TINY)


def _batches(samples: Access, images: int) -> list[torch.Tensor]:
    """A few batches of the samples, of which the last is filled up with copies."""
    places = list(samples.places)[: _MATCHED * images]
    starts = range(0, len(places), images)
    chosen = [[places[min(at, len(places) - 1)] for at in range(start, start + images)] for start in starts]
    return [torch.from_numpy(np.concatenate([samples.read(place) for place in batch])) for batch in chosen]

"""From what a criterion says of each weight or activation to one score for each unit of each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion
from lvc.passes.pruning.evidence import Evidence

Reduction = Literal["sum", "mean", "max", "min", "first"]
Normalisation = Literal["auto", "none", "mean", "max", "sum", "deviation"]

_REDUCE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda rows: rows.sum(0),
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.amax(0),
    "min": lambda rows: rows.amin(0),
    "first": lambda rows: rows[0],
}
_SCALE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda scores: scores.new_ones(()),
    "mean": lambda scores: scores.mean(),
    "max": lambda scores: scores.amax(),
    "sum": lambda scores: scores.sum(),
    "deviation": lambda scores: scores.std(correction=0),
}
assert set(_REDUCE) == set(get_args(Reduction))
assert {"auto", *_SCALE} == set(get_args(Normalisation))


@dataclass(frozen=True)
class Scores:
    """Scores of the groups that can be judged, ``f64[size]`` each; of the others, why they cannot."""

    known: Mapping[str, torch.Tensor]
    unknown: Mapping[str, str]


def score(
    groups: tuple[ChannelGroup, ...],
    criterion: Criterion,
    evidence: Evidence,
    reduction: Reduction = "mean",
    normalise: Normalisation = "auto",
) -> Scores:
    """Judge the units of groups.

    Each group's vectors are reduced to one, then divided by their own mean, maximum, sum or standard deviation: by
    default the mean, unless the criterion's scores compare as they are. Without it the narrow and cheap layers of a
    network, whose filters are small, would go first.
    """
    if normalise == "auto":
        normalise = "none" if criterion.comparable else "mean"
    known, unknown = {}, {}
    for group in evidence.progress.track(groups, f"judging by {criterion.name}"):
        parts = list(criterion.importance(group, evidence))
        if not parts:
            unknown[group.name] = f"{criterion.name} says nothing of it: {_NOTHING[criterion.needs.name]}"
            continue
        scores = _REDUCE[reduction](torch.stack(parts)).nan_to_num(posinf=1e300)
        known[group.name] = scores / _SCALE[normalise](scores).clamp(min=1e-300)
    return Scores(known, unknown)


_NOTHING = {
    "WEIGHTS": "it has no weights of the kind that the criterion looks at",
    "DATA": "no layer that the criterion can look into reads it",
    "LABELS": "no layer that the criterion can look into reads it",
}

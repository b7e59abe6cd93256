"""What a criterion is, and how one is found by its name.

A criterion `batch-norm-scale` is the file `batch_norm_scale.py` of `lvc.passes.criteria`; other packages add theirs
through the entry point `lvc.criteria`, and a Python file is named as it is: ``criterion=mine.py:MyCriterion``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.registry import Classes, Component
from lvc.passes.analysis.channel_groups import ChannelGroup

if TYPE_CHECKING:
    from lvc.passes.pruning.evidence import Evidence


class Needs(Enum):
    """What a criterion looks at; the sentences that errors say."""

    WEIGHTS = "weights alone"
    DATA = "calibration data"
    LABELS = "calibration data with labels"


@dataclass(frozen=True, kw_only=True)
class Criterion(Component):
    """Judges how much each unit of a group matters; the least important go first. Fields are options, as for passes.

    ``importance`` yields one ``f64[group.size]``, not negative, for each tensor or activation that speaks of the
    group: the reduction of the user's choice makes one score of them. It yields nothing for a group that it cannot
    judge, and that group is left alone. ``comparable`` says that scores mean the same in every group, a loss for
    example; others depend on how large a group's weights or activations happen to be.
    """

    needs: ClassVar[Needs]
    comparable: ClassVar[bool] = False

    @abstractmethod
    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]: ...


CRITERIA: Classes[Criterion] = Classes("lvc.passes.pruning.criterion:Criterion", "lvc.passes.criteria", "criterion")


def parse_criterion(text: str) -> Criterion:
    """Read ``NAME``, ``NAME{option=value}`` or ``file.py:NAME``; `UsageError` with a suggestion for anything else."""
    return _from_file(text) if ".py:" in text else CRITERIA.parse(text)


def _from_file(text: str) -> Criterion:
    from lvc.compiler.load.user_code import import_place

    file, _, name = text.rpartition(":")
    found = getattr(import_place(file), name, None)
    if not CRITERIA.holds(found):
        raise UsageError(
            f"'{file}' defines no criterion '{name}'", help="a criterion is a class that derives from Criterion"
        )
    made: Criterion = found()  # type: ignore[misc]
    return made

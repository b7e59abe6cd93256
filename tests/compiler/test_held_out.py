"""What is held out of a data set for judging, and that passes never see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.held_out import MOST, split
from lvc.compiler.pipeline.workspace import DataSet, Workspace


@dataclass(frozen=True)
class Numbers:
    """A data set of numbers from 0, each with itself as its label."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        return ((np.full(1, place), place) for place in range(self.count))


def labels(data: DataSet) -> list[int | None]:
    found = [label for _, label in data]
    assert len(found) == len(data)
    return found


@pytest.mark.parametrize(("count", "apart"), [(0, 0), (1, 0), (9, 0), (10, 2), (16, 3), (100, 20), (4000, MOST)])
def test_every_image_is_in_one_of_two_parts(count: int, apart: int) -> None:
    fitted, judged = (labels(part) for part in split(Numbers(count), 0))
    assert len(judged) == apart
    assert sorted([*fitted, *judged]) == list(range(count))


def test_the_seed_chooses() -> None:
    parts = [labels(split(Numbers(100), seed)[1]) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_passes_learn_from_what_is_not_judged() -> None:
    workspace = Workspace(data={"calib": lambda: Numbers(50)})
    judging = workspace.judging_images()
    assert set(labels(workspace.data_set("calib"))).isdisjoint(labels(judging.data))
    assert judging.is_apart
    assert str(judging) == "held out from 'calib'"


def test_of_few_images_none_is_held_out() -> None:
    workspace = Workspace(data={"calib": lambda: Numbers(6)})
    judging = workspace.judging_images()
    assert labels(workspace.data_set("calib")) == labels(judging.data) == list(range(6))
    assert not judging.is_apart
    assert str(judging) == "of 'calib', to which passes were fitted"


def test_a_set_for_judging_leaves_the_others_whole() -> None:
    workspace = Workspace(data={"calib": lambda: Numbers(50), "judge": lambda: Numbers(7)})
    judging = workspace.judging_images()
    assert len(workspace.data_set("calib")) == 50
    assert labels(judging.data) == list(range(7))
    assert judging.is_apart


def test_neither_set_is_there() -> None:
    with pytest.raises(UsageError, match="no data set named 'calib'"):
        Workspace().judging_images()

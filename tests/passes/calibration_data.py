"""Data for passes that look at some: a few images that are the same everywhere, in a workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Images:
    """A data set out of arrays, with as many classes in turn, or without labels."""

    arrays: Sequence[np.ndarray]
    classes: int = 0

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        return iter([(array, at % self.classes if self.classes else None) for at, array in enumerate(self.arrays)])


def workspace_of(*arrays: np.ndarray) -> Workspace:
    """A workspace whose data set 'calib' has these images."""
    return Workspace(data={"calib": lambda: Images(arrays)}, threads=1)


def of_integers(model: Model, count: int = 4) -> Workspace:
    """Images for a model's first input, of integers from -8 to 8, so that sums of them are exact anywhere."""
    shape = (1, *model.inputs[0].spec.shape[1:])
    values = np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)
    return workspace_of(*(values % 17 - 8))


def with_labels(workspace: Workspace) -> Workspace:
    """The same workspace with one more data set, 'train': the images of 'calib' with two classes in turn."""
    images = [array for array, _ in workspace.data["calib"]()]
    return replace(workspace, data={**workspace.data, "train": lambda: Images(images, 2)})


def normal(model: Model, count: int = 8) -> Workspace:
    """Images for a model's first input out of the standard normal distribution."""
    shape = (1, *model.inputs[0].spec.shape[1:])
    random = np.random.default_rng(0)
    return workspace_of(*(random.standard_normal(shape).astype(np.float32) for _ in range(count)))

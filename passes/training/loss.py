"""What a loss on labels is, and how one is found by its name.

The loss `cross-entropy` is the file `cross_entropy.py` of `lvc.passes.losses`; other packages add theirs through the
entry point `lvc.losses`. A function of the user's is named by its file: ``loss=mine.py:my_loss``. It is called with the
tuple of outputs and the targets as the data set has them, and returns the mean over the batch as one number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from lvc.compiler.data.access import Target
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.measure.evaluation import unknown_class
from lvc.compiler.pipeline.registry import Classes, Component


@dataclass(frozen=True, kw_only=True)
class Loss(Component):
    """What training on labels minimises. Fields are options, as for passes.

    Called with the outputs of the model, of which the first is given as it is before a last softmax or sigmoid, and
    with the targets of the batch; returns the mean over the batch.
    """

    @property
    def outside(self) -> int:
        """What a target of planes holds where no image is."""
        return 0

    @abstractmethod
    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        """Raise `UsageError` if the targets do not go with a first output of that shape, of one image or of several."""


LOSSES: Classes[Loss] = Classes("lvc.passes.training.loss:Loss", "lvc.passes.losses", "loss")


@dataclass(frozen=True, kw_only=True)
class UserLoss(Loss):
    """A function of the user's."""

    name: ClassVar[str] = "user"

    place: str = ""
    function: Callable[..., Any] = torch.sum

    def __call__(self, outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        from lvc.compiler.load.user_code import failed

        try:
            found = self.function(tuple(outputs), targets)
        except LvcError:
            raise
        except Exception as error:
            raise failed(f"the loss '{self.place}' failed", error) from error
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise UsageError(f"the loss '{self.place}' must return one number as a tensor", help="return its mean")
        return found.reshape(())

    def check(self, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
        check_known(targets)


def parse_loss(text: str) -> Loss:
    """Read ``NAME``, ``NAME{option=value}`` or ``file.py:function``; `UsageError` with a suggestion for another."""
    if ".py:" not in text:
        return LOSSES.parse(text)
    from lvc.compiler.load.user_code import import_place

    file, _, name = text.rpartition(":")
    function = getattr(import_place(file), name, None)
    if not callable(function):
        raise UsageError(f"'{file}' has no function '{name}'", help="name a function of (outputs, targets)")
    return UserLoss(place=text, function=function)


def check_known(targets: Sequence[Target]) -> None:
    """Raise `UsageError` if it is not known of every sample what it is to give."""
    if unknown := sum(target is None for target in targets):
        raise UsageError(
            f"{unknown} of {len(targets)} images have no label",
            why="training by labels needs one for each",
            help="give class folders, or a .npz file with y; or distil, which needs none",
        )


def check_classes(classes: int, targets: Sequence[Target]) -> None:
    """Raise `UsageError` unless every target is one of so many classes."""
    check_known(targets)
    if any(not isinstance(target, int) for target in targets):
        raise UsageError("the labels are arrays, not classes", help="give a loss for them, or one class an image")
    most = max((target for target in targets if isinstance(target, int)), default=0)
    if most >= classes:
        raise unknown_class(most, classes)


def check_arrays(shape: tuple[int, ...], targets: Sequence[Target]) -> None:
    """Raise `UsageError` unless every target is an array of a shape."""
    check_known(targets)
    for target in targets:
        found = target.shape if isinstance(target, np.ndarray) else ()
        if found != shape:
            raise UsageError(f"a label has the shape {list(found)}, and the model gives {list(shape)} for each image")

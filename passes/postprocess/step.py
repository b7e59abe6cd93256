"""What a step behind the outputs of a network is, and how steps are found by their names.

The step `yolox` is the file `yolox.py` of `lvc.passes.postprocessors`; other packages add theirs through the entry
point `lvc.postprocessors`. Steps take named tensors and give others. A decoder gives ``boxes`` ``f32[images, n, 4]``,
corners x1 y1 x2 y2 in pixels of the network's input, and ``scores`` ``f32[images, n, classes]``, from 0 to 1; what
selects boxes reads these two.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.registry import Classes, Component

Values = Mapping[str, Tensor]
"""Tensors by their names, in order: the outputs of a network, or what the step before has made of them."""

Made = Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]
"""Named tensors for all images, or at the end some for each image."""


@dataclass(frozen=True, kw_only=True)
class Step(Component):
    """One step, as PyTorch code of fixed shapes, which is traced. Fields are options, as for passes."""

    @abstractmethod
    def __call__(self, values: Values, size: tuple[int, int]) -> Made:
        """What it makes of the values, for a network whose input has that height and width.

        `UsageError`, by `unfit`, for values of other shapes than it takes.
        """

    def unfit(self, values: Values, takes: str) -> UsageError:
        """The error for values that the step cannot take; ``takes`` says which it can."""
        given = ", ".join(f"{name}: {TensorSpec.of(value)}" for name, value in values.items())
        return UsageError(f"'{self.name}' does not fit the outputs", why=f"it takes {takes}; it is given {given}")

    def only(self, values: Values, fits: Callable[[Tensor], bool], takes: str) -> Tensor:
        """The one of the values that fits; `UsageError` if there is none, or more than one."""
        found = [value for value in values.values() if value.is_floating_point() and fits(value)]
        if len(found) != 1:
            raise self.unfit(values, takes)
        return found[0].float()


STEPS: Classes[Step] = catalogue.STEPS

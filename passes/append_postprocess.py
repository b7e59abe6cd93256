"""Append what makes boxes of a detector's outputs, so that whoever runs the model gets boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.appending import append
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.text import parse_items
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.postprocess.step import STEPS, Made, Step


@dataclass(frozen=True, kw_only=True)
class AppendPostprocess(Pass):
    """Append steps to the outputs, such as ``yolox,nms``, so that the model gives boxes, scores and labels.

    The first step is the decoder of the head, by its name; what it gives are corners in pixels of the network's input.
    All is computed in single precision, whatever the passes before did to the network.
    """

    name: ClassVar[str] = "append-postprocess"
    effect: ClassVar[Effect] = Effect.EXACT
    changes_signature: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    ends: ClassVar[bool] = True

    steps: str = option("nms", "what is appended, in order, such as yolox,nms")

    def __post_init__(self) -> None:
        if not parse_items(self.steps, STEPS):
            raise UsageError("steps names no step", help=f"known: {', '.join(STEPS.names())}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        tail = _Tail(parse_items(self.steps, STEPS), model)
        examples = [torch.zeros(value.spec.shape, dtype=value.spec.dtype) for value in model.outputs]
        _check_first(tail, examples)
        tail(*examples)  # its errors as they are, not as tracing tells them
        before = {node.name for node in calls(model.module.graph)}
        append(model, from_module(tail, examples, name=self.name))
        for node in calls(model.module.graph):
            if node.name not in before:
                outcome.change(node)
        return outcome


def _check_first(tail: _Tail, examples: Sequence[Tensor]) -> None:
    """Raise the error of the first step for outputs that it cannot take, with those steps that could."""
    values = dict(zip(tail.names, examples, strict=True))
    try:
        tail.steps[0](values, tail.size)
    except UsageError as error:
        others = [f"'{name}'" for name in STEPS.names() if _takes(STEPS.get(name)(), values, tail.size)]
        fitting = f"{' or '.join(others)} would fit" if others else "none of the steps would fit"
        raise UsageError(error.what, why=error.why, help=error.help or fitting) from error


def _takes(step: Step, values: Mapping[str, Tensor], size: tuple[int, int]) -> bool:
    try:
        step(values, size)
    except UsageError:
        return False
    return True


class _Tail(nn.Module):
    """The steps as a module that takes the outputs of a model."""

    def __init__(self, steps: Sequence[Step], model: Model) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.names = model.output_names
        self.size = Fit.of(model.inputs).picture_size

    def forward(self, *outputs: Tensor) -> Made:
        values: Made = dict(zip(self.names, outputs, strict=True))
        for step in self.steps:
            if not isinstance(values, dict):
                raise UsageError(f"'{step.name}' cannot follow", why="the step before gives lists of boxes")
            values = step(values, self.size)
        return values

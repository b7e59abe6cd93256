"""What training minimises on a batch, by labels or by a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.data.access import Target
from lvc.compiler.ir.closing import closing_functions
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import family, spec
from lvc.compiler.ir.model import Model
from lvc.passes.training.loss import Loss
from lvc.passes.training.speed import Mode


@dataclass(frozen=True)
class Seen:
    """A batch that has been through the model.

    ``inputs`` are this process's share of it, and may be filled up with copies: of the first ``count`` images of the
    batch alone, but of all processes, ``outputs``, ``watched`` and ``targets`` are given. ``watched`` are the values of
    the nodes that the objective watches, and ``mode`` is how they were computed.
    """

    inputs: torch.Tensor
    outputs: Sequence[torch.Tensor]
    watched: Sequence[torch.Tensor]
    targets: torch.Tensor | None
    count: int
    mode: Mode


class Objective(ABC):
    """What is minimised: the sum of named parts. ``watched`` are the nodes of the model whose values it needs, and
    ``apart`` those of them behind which no gradient passes: what reads them does not train what is before."""

    watched: tuple[Node, ...]
    apart: tuple[Node, ...] = ()
    knows_labels: ClassVar[bool] = True
    """Whether states of the model are told apart by how many images they are right on, where that is known."""

    @abstractmethod
    def losses(self, seen: Seen) -> Mapping[str, torch.Tensor]:
        """Return the parts of the loss on a batch, weighted, each the mean over its images."""

    def judged(self, seen: Seen) -> Mapping[str, torch.Tensor]:
        """Return the parts of the loss by which states of the model are compared."""
        return self.losses(seen)

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Parameters of its own that are trained with the model and thrown away afterwards."""
        return {}

    def move(self, device: torch.device) -> None:
        """Bring all that it holds to a device."""
        torch.nn.ParameterList(self.parameters.values()).to(device)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Have all that it holds on a device within the ``with`` block, and back on the CPU afterwards."""
        self.move(device)
        try:
            yield
        finally:
            self.move(torch.device("cpu"))


class ByLabels(Objective):
    """A loss on labels alone."""

    def __init__(self, model: Model, loss: Loss, targets: Sequence[Target]) -> None:
        self._loss = loss
        self.watched = (scores_node(model),)
        loss.check(spec(model.output_nodes[0]).shape, targets)

    def losses(self, seen: Seen) -> Mapping[str, torch.Tensor]:
        assert seen.targets is not None
        outputs = (seen.watched[0], *seen.outputs[1:])
        return {self._loss.name: self._loss(outputs, seen.targets)}


def scores_node(model: Model, output: int = 0) -> Node:
    """Return the node of an output as it is before a last softmax or sigmoid, which losses compute more exactly."""
    node = model.output_nodes[output]
    behind = node
    while family(behind) is Family.MOVEMENT and len(behind.all_input_nodes) == 1:
        behind = behind.all_input_nodes[0]
    return behind.all_input_nodes[0] if behind in closing_functions(model.module.graph) else node

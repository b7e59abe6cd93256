"""Training by a teacher: what a frozen model computes on the same inputs is what the student is to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch.fx import Node

from lvc.compiler.data.access import Target
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.built import host_code
from lvc.passes.training.loss import Loss
from lvc.passes.training.objective import Objective, Seen, scores_node
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Weighted

_FOLDED = "eliminate-identities,fold-batch-norm,eliminate-dead"


def frozen_teacher(model: Model) -> Model:
    """A copy of a model that computes the same in fewer steps: nothing of it is ever trained."""
    folded, _ = Pipeline.parse(_FOLDED).run(model, share_tensors=True)
    return folded


def original_of(workspace: Workspace) -> Model:
    """The model as it was loaded; `UsageError` where that is not known."""
    if workspace.original is None:
        raise UsageError("nobody said what the model was as loaded", help="give distil{teacher=}")
    return workspace.original


class ByTeacher(Objective):
    """The weighted sum of terms that compare a student with its teacher, and of a loss on labels.

    The first value that is watched is the student's first output, before a last softmax. The teacher runs in PyTorch,
    or where ``compile_in`` is given as code that is made for it there.
    """

    def __init__(
        self,
        pair: Pair,
        terms: Sequence[Weighted],
        loss: Loss | None,
        targets: Sequence[Target],
        images: int,
        *,
        ranks: Ranks = ALONE,
        compile_in: Workspace | None = None,
    ) -> None:
        terms = [replace(item, term=item.term and item.term.of(pair)) for item in terms]
        self._terms, self._loss = terms, loss
        if loss and any(item.term is None for item in terms):
            loss.check(spec(pair.student.output_nodes[0]).shape, targets)
        compared = [tuple(item.term.nodes(pair)) if item.term else () for item in terms]
        ours = dict.fromkeys([scores_node(pair.student), *(node for pairs in compared for node, _ in pairs)])
        theirs = dict.fromkeys(node for pairs in compared for _, node in pairs)
        self.watched = tuple(ours)
        self._places = [[(list(ours).index(a), list(theirs).index(b)) for a, b in pairs] for pairs in compared]
        teacher = giving(pair.teacher.with_batch(images), tuple(theirs))
        self._teacher: Teacher = Compiled(teacher, compile_in) if compile_in else Eager(teacher)
        self._ranks = ranks
        self._own = [dict(item.term.parameters(pair)) if item.term else {} for item in terms]

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {f"{place}.{name}": value for place, own in enumerate(self._own) for name, value in own.items()}

    def move(self, device: torch.device) -> None:
        super().move(device)
        self._teacher.move(device)

    def losses(self, seen: Seen) -> Mapping[str, torch.Tensor]:
        with seen.mode.autocast():
            taught = [self._ranks.gather(value)[: seen.count] for value in self._teacher(seen.inputs)]
        found: dict[str, torch.Tensor] = {}
        for item, places, own in zip(self._terms, self._places, self._own, strict=True):
            if item.term is None:
                assert self._loss is not None
                assert seen.targets is not None
                value = self._loss((seen.watched[0], *seen.outputs[1:]), seen.targets)
            else:
                student = [seen.watched[ours] for ours, _ in places]
                teacher = [taught[theirs].float() for _, theirs in places]
                value = item.term(student, teacher, own, seen.targets)
            found[item.name] = found.get(item.name, torch.zeros(())) + item.weight * value
        return found


def giving(model: Model, nodes: Sequence[Node]) -> Model:
    """Rewrite a model to give the values of nodes of those names, and to compute nothing else."""
    graph = model.module.graph
    found = {node.name: node for node in graph.nodes}
    graph.output_node().args = (tuple(found[node.name] for node in nodes),)
    graph.eliminate_dead_code()
    model.module.recompile()
    return replace(model, output_names=tuple(node.name for node in nodes))


class Teacher(Protocol):
    """Computes what a student is to learn, for so many images at once as its model has."""

    def move(self, device: torch.device) -> None: ...

    def __call__(self, inputs: torch.Tensor) -> Sequence[torch.Tensor]: ...


class Eager:
    """A teacher that PyTorch runs, in the precision of the student's steps."""

    def __init__(self, model: Model) -> None:
        self._module = model.module

    def move(self, device: torch.device) -> None:
        self._module.to(device)

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        values: Sequence[torch.Tensor] = self._module(inputs)
        return values


class Compiled:
    """A teacher as code of its own for this machine, in float32."""

    def __init__(self, model: Model, workspace: Workspace) -> None:
        self._run = host_code(model, workspace)

    def move(self, device: torch.device) -> None:
        """Stay on the CPU, where the passes have steps computed that ask for it."""

    def __call__(self, inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        return [torch.from_numpy(value) for value in self._run(inputs.contiguous().numpy())]

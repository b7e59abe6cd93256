"""All outputs, each compared as what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, family, is_call, spec
from lvc.compiler.ir.model import Model
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True)
class Part:
    """A value that an output consists of, of student and teacher. Of ``probabilities`` it is what is in front of the
    sigmoid."""

    student: Node
    teacher: Node
    probabilities: bool


@dataclass(frozen=True, kw_only=True)
class Outputs(Term):
    """All outputs, each compared as what it is.

    Scores of classes ``[N,classes]`` by the divergence of their probabilities. What sigmoids give, such as a mask or
    the scores of a detector's boxes, by the divergence of each probability from the teacher's, relative to how much
    probability the teacher gives: of thousands of boxes a few are objects, and what says so is to count. All else, such
    as boxes, by the smooth L1 distance (Girshick, "Fast R-CNN", 2015, equation 3), each channel relative to its spread
    over the batch. An output that is put together of several values is compared value by value. The mean over all.
    """

    name: ClassVar[str] = "outputs"

    def of(self, pair: Pair) -> Term:
        return KnownOutputs(parts=tuple(_parts(pair)))

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return self.of(pair).nodes(pair)

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        return torch.stack([_apart(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean()


@dataclass(frozen=True, kw_only=True)
class KnownOutputs(Outputs):
    """The outputs of a pair of models, of which it is known what they consist of."""

    parts: tuple[Part, ...]

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return [(part.student, part.teacher) for part in self.parts]

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        found = [
            (_probabilities_apart if part.probabilities else _apart)(ours, theirs)
            for part, ours, theirs in zip(self.parts, student, teacher, strict=True)
        ]
        return torch.stack(found).mean()


def _parts(pair: Pair) -> Iterator[Part]:
    """What the outputs in floating point consist of; `UsageError` if there is none."""
    floats = [i for i, output in enumerate(pair.student.outputs) if output.spec.dtype.is_floating_point]
    if not floats:
        raise UsageError("no output is in floating point, so none can be learnt from", help="compare features")
    for output in floats:
        ours, theirs = (list(_values(model, output)) for model in (pair.student, pair.teacher))
        kinds, others = ([(_is_sigmoid(node), spec(node).shape) for node in nodes] for nodes in (ours, theirs))
        if kinds != others or [is_sigmoid for is_sigmoid, _ in kinds] == [False]:
            yield Part(*pair.outputs[output], probabilities=False)
            continue
        for mine, other in zip(ours, theirs, strict=True):
            if _is_sigmoid(mine):
                yield Part(mine.all_input_nodes[0], other.all_input_nodes[0], probabilities=True)
            else:
                yield Part(mine, other, probabilities=False)


def _values(model: Model, output: int) -> Iterator[Node]:
    """The values that an output is put together of, each of which is in it as a whole."""
    waiting = [model.output_nodes[output]]
    while waiting:
        node = waiting.pop(0)
        if is_call(node, aten.cat.default):
            waiting = [*arguments(node)["tensors"], *waiting]
        elif _moves_all(node):
            waiting.insert(0, node.all_input_nodes[0])
        else:
            yield node


def _moves_all(node: Node) -> bool:
    """Whether a node gives all that it reads, in another order or shape."""
    sources = node.all_input_nodes
    return family(node) is Family.MOVEMENT and len(sources) == 1 and spec(sources[0]).elements == spec(node).elements


def _is_sigmoid(node: Node) -> bool:
    return is_call(node, aten.sigmoid.default)


def _probabilities_apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The sum of the divergences of probabilities, of which scores are given, by that of the teacher's probabilities,
    or by the number of images where that is less."""
    wanted = teacher.sigmoid()
    crossed = functional.binary_cross_entropy_with_logits(student, wanted, reduction="sum")
    least = functional.binary_cross_entropy_with_logits(teacher, wanted, reduction="sum")
    return (crossed - least) / wanted.sum().clamp(min=len(teacher))


def _apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    if teacher.ndim == 2 and teacher.shape[1] > 1:
        ours, theirs = functional.log_softmax(student, 1), functional.log_softmax(teacher, 1)
        return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    spread = _spread(teacher)
    return functional.smooth_l1_loss(student / spread, teacher / spread)


def _spread(value: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each channel, which images ``[N,C,H,W]`` have second and all else last."""
    channels = 1 if value.ndim == 4 else value.ndim - 1
    others = [dim for dim in range(value.ndim) if dim != channels] or [0]
    found = value.std(others, keepdim=True, correction=0)
    return torch.where(found > 0, found, torch.ones_like(found))

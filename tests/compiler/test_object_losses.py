"""What a pass costs a detector: objects are matched by class and overlap, whatever order they come in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_judge import ScaleWeights
from torch import Tensor, nn

import lvc
from lvc.compiler.driver import optimise
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.comparison.loss import OutputLoss, compare_all
from lvc.compiler.measure.comparison.verdict import loss_lines, verdict_lines
from lvc.compiler.measure.records import from_json, to_json
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytest.importorskip("torchvision")

LISTED = 6


class Lists(nn.Module):
    """Boxes, scores and classes as they are given."""

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        kept = scores > 0
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def model() -> Model:
    given = torch.rand(LISTED, 4), torch.rand(LISTED), torch.ones(LISTED, dtype=torch.int64)
    return lvc.from_module(Lists(), given)


BOXES = torch.tensor(
    [[0.0, 0, 8, 8], [20, 0, 28, 8], [0, 20, 8, 28], [20, 20, 28, 28], [40, 0, 48, 8], [40, 40, 41, 41]]
)
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.2, 0.0])
LABELS = torch.tensor([1, 2, 1, 2, 1, 1])


def losses(change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]) -> dict[str, OutputLoss]:
    """What is lost by a change of the six lists of boxes, of which four are sure; one is not there at all."""
    made = model()
    run = lambda *lists: tuple(torch.from_numpy(part) for part in made(*(part.numpy() for part in lists)))  # noqa: E731
    wanted, found = run(BOXES, SCORES, LABELS), run(*change(BOXES.clone(), SCORES.clone(), LABELS.clone()))
    return {loss.name: loss for loss in compare_all(made, [wanted, wanted], [found, wanted])}


def test_the_order_of_objects_is_no_loss() -> None:
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    found = losses(lambda *lists: tuple(part[order] for part in lists))
    assert list(found) == ["boxes", "scores", "labels"]
    assert all((loss.sqnr, loss.lost, loss.damaged) == (math.inf, 0, 0) for loss in found.values())
    assert (found["boxes"].agreement, found["labels"].agreement) == (1.0, None)


def moved(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The first by an eighth, the second by half of its side, the third to another class, and the last away."""
    boxes[0, ::2] += 1
    boxes[1, ::2] += 4
    labels[2] = 5
    scores[3] = 0.2
    return boxes, scores, labels


def test_objects_are_found_or_not() -> None:
    found = losses(moved)  # in one of two images
    assert found["boxes"].agreement == 5 / 8
    assert all(loss.lost == 3 / 8 and loss.of_objects for loss in found.values())
    assert found["boxes"].damaged == 3 / 8  # seven ninths are close enough
    assert not found["boxes"].has_collapsed


def test_a_detector_that_finds_nothing_has_collapsed() -> None:
    made = model()
    nothing = (*map(torch.zeros_like, (BOXES, SCORES, LABELS)), torch.tensor(0))
    wanted = (BOXES, SCORES, LABELS, torch.tensor(5))
    found = compare_all(made, [wanted], [nothing])
    assert all(loss.has_collapsed for loss in found)
    (first, *_) = verdict_lines(found, "over 1 image", "something else")
    assert first.startswith(
        "COLLAPSED: 'boxes': 0.0 dB, 0.00 % of the objects are found; 100 % of the objects are not found"
    )
    assert all(loss.sqnr == math.inf for loss in compare_all(made, [nothing], [nothing]))


class Head(nn.Module):
    """A raw head of YOLOX, whose boxes and scores two layers compute."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.score = nn.ModuleList(nn.Conv2d(3, 6, stride, stride) for stride in (8, 16, 32))
        self.box = nn.ModuleList(nn.Conv2d(3, 4, stride, stride) for stride in (8, 16, 32))

    def forward(self, image: Tensor) -> Tensor:
        levels = [
            torch.cat([b(image), s(image).sigmoid()], 1).flatten(2) for b, s in zip(self.box, self.score, strict=True)
        ]
        return torch.cat(levels, 2).transpose(1, 2)


def judged(by: float) -> Loss:
    """What it costs to multiply the weights of the last layer, which is one for boxes, with suppression behind it."""
    images = [(np.random.default_rng(seed).random((1, 3, 64, 64), np.float32), None) for seed in range(10)]
    workspace = Workspace(data={"judge": lambda: images}, threads=1)
    made = lvc.from_module(Head().eval(), torch.rand(1, 3, 64, 64))
    pipeline = (Pipeline.parse("O1") + Pipeline((ScaleWeights(by=by),))).with_ends("yolox,nms{score=0.1}")
    _, steps = optimise(made, pipeline, workspace)
    step = next(step for step in steps if "loss" in step.measured)
    again = from_json(to_json(step), lambda _: step.item)
    assert again.measured["loss"] == step.measured["loss"]
    if any(loss.has_collapsed for loss in step.measured["loss"].objects):
        assert any("COLLAPSED: 'boxes'" in line for line in loss_lines(steps, made.inputs))
    loss: Loss = step.measured["loss"]
    return loss


def test_objects_behind_a_raw_head_are_judged_with_its_steps() -> None:
    near, far = judged(1.001), judged(-60.0)
    assert [loss.name for loss in near.objects] == ["boxes", "scores", "labels"]
    assert near.objects[0].lost == 0
    assert not near.objects[0].has_collapsed
    assert far.objects[0].lost > near.objects[0].lost
    assert [loss.name for loss in far.in_all] == ["output"]

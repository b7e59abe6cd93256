"""How well a model does by its task, where it is known what its images show: the one place that says by which metric.

First choices of a classifier that are right, average precision of a detector, mean intersection over union of a model
that segments: each a share of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvc.compiler.data.labelled import BoxData, Known, Truth
from lvc.compiler.data.samples import Fit
from lvc.compiler.ir.counts import cut, visible
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import CLASSIFY, DETECT, SEGMENT, detection_outputs, is_class_scores, task_of_model
from lvc.compiler.measure.average_precision import average_precision, check_pycocotools, class_table
from lvc.compiler.measure.choices import TOP1
from lvc.compiler.measure.detections import class_maps, detections
from lvc.compiler.measure.evaluation import Score
from lvc.compiler.measure.mean_iou import Confusion

METRICS = {CLASSIFY: TOP1, DETECT: "AP", SEGMENT: "mean IoU"}


@dataclass(frozen=True)
class TaskMetric:
    """The metric of a task on images of which it is ``known`` what they show: those of each input of the signature's
    size, without padding."""

    task: str
    known: tuple[tuple[Known, ...], ...]

    @property
    def name(self) -> str:
        return METRICS[self.task]

    @classmethod
    def of(cls, model: Model, known: Sequence[Sequence[Known]]) -> TaskMetric | None:
        """The metric for a model; None where too little is known of the images, or it has no such task.

        `UsageError` for a detector where there is nothing to measure average precision with.
        """
        shown, found = tuple(map(tuple, known)), [one for part in known for one in part if one is not None]
        task = task_of_model(model)
        if not found or not _tells(task, model, found):
            return None
        if task == DETECT:
            check_pycocotools()
        return cls(task, shown)

    def score(self, model: Model, runs: Sequence[Sequence[torch.Tensor]]) -> float:
        """The score of what a model gave for each input: its outputs, those of padding behind the others. Inputs behind
        those of which something is known do not count."""
        arrays = [[out.float().numpy() for out in made] for made in runs[: len(self.known)]]
        return {CLASSIFY: self._right, DETECT: self._precision, SEGMENT: self._overlap}[self.task](model, arrays)

    def _right(self, model: Model, runs: Sequence[Sequence[np.ndarray]]) -> float:
        score = Score()
        for (scores, *_), labels in zip(runs, self.known, strict=True):
            rows = scores.reshape(scores.shape[:2])[: len(labels)]
            score.add(rows, [label if isinstance(label, int) else None for label in labels])
        return score.top1 / score.labelled

    def _precision(self, model: Model, runs: Sequence[Sequence[np.ndarray]]) -> float:
        outputs = visible(model.outputs, model.counts)
        found, truths = [], []
        for arrays, known in zip(runs, self.known, strict=True):
            there = [one if isinstance(one, Truth) else None for one in known]
            boxes = detections(
                outputs, cut(model.outputs, model.counts, arrays), [one.placement if one else None for one in there]
            )
            pairs = [(ours, one) for ours, one in zip(boxes, there, strict=False) if one and one.objects]
            found += [ours for ours, _ in pairs]
            truths += [one for _, one in pairs]
        data = BoxData(
            tuple(one.picture for one in truths), tuple(one.objects for one in truths if one.objects is not None)
        )
        most = max((int(one.labels.max(initial=0)) for one in found), default=0)
        return average_precision(found, data, class_table(model.labels or (), (), most)).ap

    def _overlap(self, model: Model, runs: Sequence[Sequence[np.ndarray]]) -> float:
        size = Fit.of(model.inputs).picture_size
        confusion = Confusion(model.outputs[0].spec.shape[1])
        for (scores, *_), known in zip(runs, self.known, strict=True):
            there = [one if isinstance(one, Truth) else None for one in known]
            maps = class_maps(scores[: len(there)], size, [one.placement if one else None for one in there])
            for classes, one in zip(maps, there, strict=True):
                if one and one.mask is not None:
                    confusion.add(classes, one.mask(), str(one.picture))
        return confusion.mean


def in_parts(known: Sequence[Known], size: int) -> list[Sequence[Known]]:
    """What is known of images for each input of ``size`` of them."""
    return [known[at : at + size] for at in range(0, len(known), size)]


def _tells(task: str, model: Model, known: Sequence[Known]) -> bool:
    """Whether what is known of images is what a task is measured by."""
    if task == CLASSIFY:
        shape, images = model.outputs[0].spec.shape, model.inputs[0].spec.shape[0]
        classes = [one for one in known if isinstance(one, int)]
        return is_class_scores(shape, images) and bool(classes) and max(classes) < shape[1]
    truths = [one for one in known if isinstance(one, Truth)]
    if task == DETECT:
        boxes = [one.objects for one in truths if one.objects is not None]
        return len(detection_outputs(visible(model.outputs, model.counts))) == model.inputs[0].spec.shape[0] and any(
            len(one.labels) for one in boxes
        )
    return task == SEGMENT and any(one.mask is not None for one in truths)

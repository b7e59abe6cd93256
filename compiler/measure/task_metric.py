"""How well a model does by its task, where it is known what its images show: the one place that says by which metric.

First choices of a classifier that are right, average precision of boxes, or of masks or keypoints where these are the
task and known, mean intersection over union of a model that segments: each a share of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvc.compiler.data.labelled import BoxData, Known, LabelledBoxes, Truth
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.counts import cut, visible
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import CLASSIFY, FIND_OBJECTS, SEGMENT, detection_outputs, is_class_scores, task_of_model
from lvc.compiler.measure.average_precision import (
    Kind,
    average_precision,
    check_pycocotools,
    class_table,
    kinds_of,
)
from lvc.compiler.measure.choices import TOP1
from lvc.compiler.measure.detections import class_maps, detections
from lvc.compiler.measure.evaluation import Score
from lvc.compiler.measure.mean_iou import Confusion

_MEAN_IOU = "mean IoU"
METRICS = (TOP1, *(kind.metric for kind in Kind), _MEAN_IOU)


@dataclass(frozen=True)
class TaskMetric:
    """The metric of a task on images of which it is ``known`` what they show: those of each input of the signature's
    size, without padding. ``labels`` are the names of the model's classes."""

    task: str
    known: tuple[tuple[Known, ...], ...]
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        if self.task in FIND_OBJECTS:
            return self._kind.metric
        return TOP1 if self.task == CLASSIFY else _MEAN_IOU

    @property
    def _kind(self) -> Kind:
        return kinds_of(self.task, _objects(one for part in self.known for one in part))[-1]

    @classmethod
    def of(cls, model: Model, known: Sequence[Sequence[Known]]) -> TaskMetric | None:
        """The metric for a model; None where too little is known of the images, or it has no such task.

        `UsageError` for a detector where there is nothing to measure average precision with.
        """
        shown, found = tuple(map(tuple, known)), [one for part in known for one in part if one is not None]
        task = task_of_model(model)
        if not found or not _tells(task, model, found):
            return None
        if task in FIND_OBJECTS:
            check_pycocotools()
            _check_names(model, found)
        return cls(task, shown, tuple(model.labels or ()))

    def score(self, model: Model, runs: Sequence[Sequence[torch.Tensor]]) -> float:
        """The score of what a model gave for each input: its outputs, those of padding behind the others. Inputs behind
        those of which something is known do not count."""
        arrays = [[out.float().numpy() for out in made] for made in runs[: len(self.known)]]
        measure = {CLASSIFY: self._right, SEGMENT: self._overlap}.get(self.task, self._precision)
        return measure(model, arrays)

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
            pairs = [(ours.packed(), one) for ours, one in zip(boxes, there, strict=False) if one and one.objects]
            found += [ours for ours, _ in pairs]
            truths += [one for _, one in pairs]
        data = BoxData(tuple(one.picture for one in truths), tuple(_objects(truths)))
        most = max((int(one.labels.max(initial=0)) for one in found), default=0)
        classes = class_table(self.labels, truths[0].names, most)
        return average_precision(found, data, classes, self._kind).ap

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


def _objects(known: Iterable[Known]) -> list[LabelledBoxes]:
    """The objects of those pictures of which they are known."""
    return [one.objects for one in known if isinstance(one, Truth) and one.objects is not None]


def _check_names(model: Model, known: Sequence[Known]) -> None:
    """Raise `UsageError` where the classes of the labels have names, and those of the model have none: it would be a
    guess which is which."""
    names = next((one.names for one in known if isinstance(one, Truth)), ())
    if names and not model.labels:
        raise UsageError(
            "the classes of the annotations have names, and those of the model have none",
            why=f"they are {', '.join(names[:4])}{', ...' * (len(names) > 4)}",
            help="give the model's by --labels, such as coco or coco91",
        )


def _tells(task: str, model: Model, known: Sequence[Known]) -> bool:
    """Whether what is known of images is what a task is measured by."""
    if task == CLASSIFY:
        shape, images = model.outputs[0].spec.shape, model.inputs[0].spec.shape[0]
        classes = [one for one in known if isinstance(one, int)]
        return is_class_scores(shape, images) and bool(classes) and max(classes) < shape[1]
    if task in FIND_OBJECTS:
        lists, images = detection_outputs(visible(model.outputs, model.counts)), model.inputs[0].spec.shape[0]
        return len(lists) == images and any(len(one.labels) for one in _objects(known))
    return task == SEGMENT and any(isinstance(one, Truth) and one.mask is not None for one in known)

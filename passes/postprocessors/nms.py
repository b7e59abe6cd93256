"""Class-wise non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.operators import ordering
from lvc.compiler.load.detectors.boxes import best, best_pairs, detections
from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Nms(Step):
    """The best boxes of each class, without those that overlap a better one of it: ``boxes``, ``scores``, ``labels``.

    They come best first, as lists of as many as there are. ``candidates`` are the pairs of a box and a class with the
    best scores; of equal scores that of the box, then of the class, which stands first.
    """

    name: ClassVar[str] = "nms"

    iou: float | None = option(0.65, "the largest intersection over union that boxes of one class keep; none: any")
    score: float = option(0.01, "boxes are taken whose score is above")
    most: int = option(100, "boxes of an image")
    candidates: int = option(300, "pairs of a box and a class that are compared")
    classes: Literal["every", "best"] = option("every", "for which classes a box may stand: with a score above, or one")

    def __post_init__(self) -> None:
        if self.iou is not None and not 0 <= self.iou <= 1:
            raise UsageError(f"iou must be from 0 to 1, or none, not {self.iou:g}")
        if not 0 <= self.score < 1:
            raise UsageError(f"score must be from 0 to below 1, not {self.score:g}")
        if not 1 <= self.most <= self.candidates:
            raise UsageError("most must be from 1, and at most candidates")

    def __call__(self, values: Values, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        boxes, scores = values.get("boxes"), values.get("scores")
        is_fit = boxes is not None and scores is not None and boxes.ndim == scores.ndim == 3
        if boxes is None or scores is None or not is_fit or boxes.shape != (*scores.shape[:2], 4):
            raise self.unfit(values, "boxes [images, n, 4] and scores [images, n, classes], as a decoder gives them")
        return [self._found(*image) for image in zip(boxes, scores, strict=True)]

    def _found(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        if self.classes == "best":
            row, labels = self._best_of_each(scores)
            values = scores.amax(1).index_select(0, row)
        else:
            values, row, labels = best_pairs(scores, self.candidates)
        boxes, keep = boxes.index_select(0, row), values > self.score
        if self.iou is not None:
            keep = ordering.nms(boxes, keep, self.iou, labels)
        return detections(boxes, values, labels, keep, self.most)

    def _best_of_each(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        _, row = best(scores.amax(1), min(self.candidates, scores.shape[0]))
        return row, scores.argmax(1).index_select(0, row)

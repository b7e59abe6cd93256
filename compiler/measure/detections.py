"""What a detector found in pictures, in their own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lvc.compiler.data.placement import Placement
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.task import detection_outputs

_INSIDE = 0.5
"""What a mask holds is how probable it is that a pixel belongs to the object."""


@dataclass(frozen=True)
class Detections:
    """Boxes of one picture: corners ``f64[n, 4]``, x1 y1 x2 y2, ``scores f64[n]`` and ``labels i64[n]``, best first.

    ``masks`` are ``bool[n, H, W]`` over the network's input, in which the picture lies as ``placement`` says;
    ``keypoints`` ``f64[n, k, 2]`` x and y in the picture, NaN where there is none. ``runs`` are what remains of masks
    once they are `packed`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    placement: Placement | None = None
    runs: tuple[dict[str, object], ...] | None = None

    def packed(self) -> Detections:
        """The same with masks as pycocotools has them, of the pixels of the picture: they take little memory."""
        if self.masks is None:
            return self
        from pycocotools.mask import encode

        masks = (self.pixels(place) for place in range(len(self.labels)))
        runs = tuple(encode(np.asfortranarray(mask, np.uint8)) for mask in masks if mask is not None)
        return replace(self, masks=None, runs=runs)

    def above(self, score: float) -> Detections:
        """Those whose score is at least that."""
        kept = self.scores >= score
        masks, keypoints = (part if part is None else part[kept] for part in (self.masks, self.keypoints))
        runs = self.runs and tuple(run for run, stays in zip(self.runs, kept, strict=True) if stays)
        return Detections(
            self.boxes[kept], self.scores[kept], self.labels[kept], masks, keypoints, self.placement, runs
        )

    def pixels(self, index: int) -> np.ndarray | None:
        """The pixels of the picture that an object covers, ``bool[height, width]``; None without masks."""
        if self.masks is None:
            return None
        mask = self.masks[index]
        return self.placement.classes(mask, mask.shape) > 0 if self.placement else mask


def detections(
    outputs: Sequence[Value], arrays: Sequence[np.ndarray], placements: Sequence[Placement | None]
) -> list[Detections]:
    """What the outputs of one run hold for each picture; without a placement in pixels of the network's input.

    `CheckError` for numbers that are none.
    """
    found = []
    for places, placement in zip(detection_outputs(outputs), placements, strict=False):
        boxes, scores, labels = (arrays[at] for at in (places.boxes, places.scores, places.labels))
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise CheckError("the model's boxes hold NaN or infinity")
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        corners = boxes[order].astype(np.float64)
        corners = placement.boxes(corners) if placement else corners
        masks = None if places.masks is None else arrays[places.masks][order, 0] > _INSIDE
        keypoints = None if places.keypoints is None else _keypoints(arrays[places.keypoints][order], placement)
        classes = labels[order].astype(np.int64)
        found.append(Detections(corners, scores[order].astype(np.float64), classes, masks, keypoints, placement))
    return found


def _keypoints(found: np.ndarray, placement: Placement | None) -> np.ndarray:
    points = found[..., :2].astype(np.float64)
    points = placement.points(points) if placement else points
    return np.where(found[..., 2:] > 0, points, np.nan)


def class_maps(
    scores: np.ndarray, input_size: tuple[int, int], placements: Sequence[Placement | None]
) -> list[np.ndarray]:
    """The class of each pixel of pictures, of scores ``[N,C,H,W]`` for inputs of a size; `CheckError` for NaN."""
    if np.isnan(scores).any():
        raise CheckError("the model's output holds NaN")
    best = scores.argmax(1)
    return [
        placement.classes(classes, input_size) if placement else classes.astype(np.int64)
        for classes, placement in zip(best, placements, strict=False)
    ]

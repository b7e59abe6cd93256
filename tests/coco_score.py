"""Scores a YOLOX detector on labelled pictures by COCO's average precision: IoU 0.50 to 0.95, 101 recall points.

The detector is a callable from a picture ``f32[1,3,416,416]`` (BGR, 0..255, letterboxed with 114 at the top left) to
``f32[1,3549,85]``: centre, size, objectness and class scores of each cell of strides 8, 16 and 32, not yet decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE, STRIDES = 416, (8, 16, 32)
LOWEST_SCORE, NMS_IOU, MOST_BOXES = 0.001, 0.65, 100
IOUS = np.arange(0.5, 1.0, 0.05)

Detector = Callable[[np.ndarray], np.ndarray]


class Boxes(NamedTuple):
    """Boxes of one picture: corners in its pixels, class ids, and scores (1 for labels)."""

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def score(detector: Detector, folder: Path, step: int = 1) -> tuple[float, float]:
    """Return AP at IoU 0.50 and AP averaged over IoU 0.50 to 0.95, over the classes that have labels.

    Only every ``step``-th picture counts, and the detector sees no other.
    """
    found, wanted = [], []
    for picture, ratio, labels in islice(pictures(folder), 0, None, step):
        found.append(decode(detector(picture)[0], ratio))
        wanted.append(labels)
    classes = np.unique(np.concatenate([labels.classes for labels in wanted]))
    precisions = np.array([_average_precisions(found, wanted, kind) for kind in classes])
    return float(precisions[:, 0].mean()), float(precisions.mean())


def pictures(folder: Path) -> Iterator[tuple[np.ndarray, float, Boxes]]:
    """Yield each picture as the detector takes it, its scale, and its labels."""
    for file in sorted((folder / "images").iterdir()):
        pixels = Image.open(file).convert("RGB")
        ratio = min(SIZE / pixels.height, SIZE / pixels.width)
        resized = pixels.resize((int(pixels.width * ratio), int(pixels.height * ratio)), Image.Resampling.BILINEAR)
        canvas = np.full((SIZE, SIZE, 3), 114, np.float32)
        canvas[: resized.height, : resized.width] = np.asarray(resized)[:, :, ::-1]
        labels = _read_labels(folder / "labels" / f"{file.stem}.txt", pixels.width, pixels.height)
        yield np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), ratio, labels


def _read_labels(file: Path, width: int, height: int) -> Boxes:
    rows = np.array([line.split() for line in file.read_text().splitlines()], np.float64).reshape(-1, 5)
    centre, half = rows[:, 1:3] * (width, height), rows[:, 3:5] * (width, height) / 2
    return Boxes(np.hstack([centre - half, centre + half]), rows[:, 0].astype(int), np.ones(len(rows)))


def decode(raw: np.ndarray, ratio: float) -> Boxes:
    """Turn the cells' numbers into boxes of the original picture, the best of each class, overlaps suppressed."""
    cells = [np.stack(np.meshgrid(*[np.arange(SIZE // s)] * 2), -1).reshape(-1, 2) for s in STRIDES]
    strides = np.concatenate([np.full((len(cell), 1), s) for cell, s in zip(cells, STRIDES, strict=True)])
    centre = (raw[:, :2] + np.concatenate(cells)) * strides
    half = np.exp(raw[:, 2:4]) * strides / 2
    corners = np.hstack([centre - half, centre + half]) / ratio
    scores = raw[:, 4:5] * raw[:, 5:]
    cell, kind = np.nonzero(scores > LOWEST_SCORE)
    boxes = Boxes(corners[cell], kind, scores[cell, kind])
    kept = np.concatenate([_suppress(boxes, kind) for kind in np.unique(boxes.classes)] or [np.zeros(0, int)])
    kept = kept[np.argsort(-boxes.scores[kept], kind="stable")][:MOST_BOXES]
    return Boxes(boxes.corners[kept], boxes.classes[kept], boxes.scores[kept])


def _suppress(boxes: Boxes, kind: int) -> np.ndarray:
    """Return the boxes of a class that overlap no better one of it."""
    order = np.nonzero(boxes.classes == kind)[0]
    order = order[np.argsort(-boxes.scores[order], kind="stable")]
    kept = []
    while len(order):
        kept.append(order[0])
        order = order[1:][_ious(boxes.corners[order[:1]], boxes.corners[order[1:]])[0] <= NMS_IOU]
    return np.array(kept)


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return overlap / np.maximum(areas[0][:, None] + areas[1][None] - overlap, 1e-9)


def _average_precisions(found: list[Boxes], wanted: list[Boxes], kind: int) -> np.ndarray:
    """Return AP of one class at each IoU: each label is matched by the best-scored free box that overlaps it."""
    scores, hits, total = [], [], 0
    for boxes, labels in zip(found, wanted, strict=True):
        truth = labels.corners[labels.classes == kind]
        mine = boxes.classes == kind
        total += len(truth)
        scores.append(boxes.scores[mine])
        hits.append(_matched(_ious(boxes.corners[mine], truth)))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    true = np.concatenate(hits)[order].cumsum(0)
    recall, precision = true / total, true / np.arange(1, len(true) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return np.array([_sampled(recall[:, i], precision[:, i]) for i in range(len(IOUS))])


def _matched(overlaps: np.ndarray) -> np.ndarray:
    """Return for each box, best score first, and each IoU whether it finds a label that none before it took."""
    hits = np.zeros((len(overlaps), len(IOUS)), bool)
    for column, least in enumerate(IOUS):
        free = overlaps.copy()
        for row in range(len(free)):
            best = int(free[row].argmax()) if free.shape[1] else -1
            if best >= 0 and free[row, best] >= least:
                hits[row, column] = True
                free[:, best] = -1.0
    return hits


def _sampled(recall: np.ndarray, precision: np.ndarray) -> float:
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[places].mean())

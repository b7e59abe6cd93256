"""How well a detector finds what is in pictures: COCO's average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from lvc.compiler.data.labelled import BoxData, LabelledBoxes
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.detections import Detections

MOST_BOXES = 100


@dataclass(frozen=True)
class AveragePrecision:
    """Over the classes that have objects: ``ap`` averaged over intersections over union from 0.50 to 0.95, ``ap50`` and
    ``ap75`` at one; of ``small`` objects below 32x32 pixels, ``medium`` and ``large`` ones from 96x96. None where there
    is no such object."""

    ap: float
    ap50: float
    ap75: float
    small: float | None
    medium: float | None
    large: float | None
    images: int
    objects: int


def check_pycocotools() -> None:
    """Raise `UsageError` where average precision cannot be measured; called before any work is done."""
    if find_spec("pycocotools") is None:
        raise UsageError("average precision needs pycocotools", help="pip install 'lvc[evaluation]', or pycocotools")


def average_precision(found: Sequence[Detections], data: BoxData, classes: Sequence[int]) -> AveragePrecision:
    """Score what was found in each picture of a data set, at most 100 boxes of each.

    ``classes`` are the classes of the data that the labels of the model stand for, -1 for none. `UsageError` if no
    picture has an object.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = sum(len(one.labels) for one in data.objects)
    if not objects:
        raise UsageError("the pictures have no objects", why="without one there is no average precision")
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        truth, nothing, rows = COCO(), COCO(), _rows(found, classes)
        truth.dataset = _truth(data.objects)
        nothing.dataset = truth.dataset | {"annotations": []}
        for one in (truth, nothing):
            one.createIndex()
        run = COCOeval(truth, truth.loadRes(rows) if len(rows) else nothing, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    ap, ap50, ap75, *by_size = (float(share) for share in run.stats[:6])
    small, medium, large = (share if share >= 0 else None for share in by_size)
    return AveragePrecision(ap, ap50, ap75, small, medium, large, len(data.pictures), objects)


def class_table(labels: Sequence[str], names: Sequence[str], most: int) -> list[int]:
    """The class of the data for each label of a model up to ``most``, -1 where it has none: the one of the same name if
    both have names, else that of the same number. `UsageError` if they have names of which none is the same."""
    if not labels or not names:
        return list(range(most + 1))
    places = {name: place for place, name in enumerate(names)}
    found = [places.get(label, -1) for label in labels]
    if max(found) < 0:
        why = f"the model's are {', '.join(labels[:4])}, ..., those of the data {', '.join(names[:4])}, ..."
        raise UsageError("the model and the data have no class in common", why=why, help="give --labels as in the data")
    return found + [-1] * (most + 1 - len(found))


def _truth(objects: Iterable[LabelledBoxes]) -> dict[str, list[dict[str, object]]]:
    items: list[dict[str, object]] = []
    images = list(objects)
    for image, one in enumerate(images):
        sides = np.hstack([one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2]])
        for box, label, area, crowd in zip(sides.tolist(), one.labels, one.areas, one.crowds, strict=True):
            of_box: dict[str, object] = {"id": len(items) + 1, "image_id": image, "category_id": int(label)}
            items.append(of_box | {"bbox": box, "area": float(area), "iscrowd": int(crowd)})
    used = np.unique(np.concatenate([one.labels for one in images])).tolist()
    return {
        "images": [{"id": image} for image in range(len(images))],
        "annotations": items,
        "categories": [{"id": int(label)} for label in used],
    }


def _rows(found: Sequence[Detections], classes: Sequence[int]) -> np.ndarray:
    """Image, x, y, width, height, score and class of each box, ``f64[n, 7]``."""
    table = np.array([*classes, -1], np.int64)
    parts = [np.zeros((0, 7))]
    for image, one in enumerate(found):
        labels = table[np.where((one.labels >= 0) & (one.labels < len(classes)), one.labels, len(classes))]
        sides = [one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2], one.scores[:, None], labels[:, None]]
        parts.append(np.hstack([np.full((len(labels), 1), image), *sides])[labels >= 0])
    return np.concatenate(parts)

"""How well objects are found in pictures: COCO's average precision of boxes, masks and points, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

import numpy as np

from lvc.compiler.data.labelled import BoxData, LabelledBoxes
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import INSTANCE, POSE
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


class Kind(StrEnum):
    """What is compared of two objects, as pycocotools calls it, and how average precision of it is called."""

    BOXES = "bbox"
    MASKS = "segm"
    KEYPOINTS = "keypoints"

    @property
    def metric(self) -> str:
        return {Kind.BOXES: "AP", Kind.MASKS: "mask AP", Kind.KEYPOINTS: "keypoint AP"}[self]


def kinds_of(task: str, objects: Iterable[LabelledBoxes]) -> list[Kind]:
    """What of a task's objects can be compared with what is known of pictures; its own kind last."""
    there = [one for one in objects if len(one.labels)]
    if task == INSTANCE and there and all(one.outlines is not None for one in there):
        return [Kind.BOXES, Kind.MASKS]
    if task == POSE and there and all(one.keypoints is not None for one in there):
        return [Kind.BOXES, Kind.KEYPOINTS]
    return [Kind.BOXES]


def average_precision(
    found: Sequence[Detections], data: BoxData, classes: Sequence[int], kind: Kind = Kind.BOXES
) -> AveragePrecision:
    """Score what was found in each picture of a data set, at most 100 boxes of each, or 20 with keypoints.

    ``classes`` are the classes of the data that the labels of the model stand for, -1 for none. Masks must be `packed`.
    Points are as near as COCO's deviations of a person's 17 let them be; of others each deviates by a share of 1/k.
    `UsageError` if no picture has an object.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = sum(len(one.labels) for one in data.objects)
    if not objects:
        raise UsageError("the pictures have no objects", why="without one there is no average precision")
    _check_fits(found, data, kind)
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        truth, nothing, rows = COCO(), COCO(), _rows(found, classes, kind)
        truth.dataset = _truth(data.objects, kind)
        nothing.dataset = truth.dataset | {"annotations": []}
        for one in (truth, nothing):
            one.createIndex()
        run = COCOeval(truth, truth.loadRes(rows) if len(rows) else nothing, kind.value)
        if kind is Kind.KEYPOINTS and (points := _points(data.objects)) != len(run.params.kpt_oks_sigmas):
            run.params.kpt_oks_sigmas = np.full(points, 1 / max(1, points))
        run.evaluate()
        run.accumulate()
        run.summarize()
    ap, ap50, ap75, *by_size = (float(share) for share in run.stats[: 5 if kind is Kind.KEYPOINTS else 6])
    small, medium, large = (share if share >= 0 else None for share in [-1.0, *by_size][-3:])
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


def _points(objects: Iterable[LabelledBoxes]) -> int:
    """How many keypoints an object has."""
    return max((one.keypoints.shape[1] for one in objects if one.keypoints is not None and len(one.labels)), default=0)


def _check_fits(found: Sequence[Detections], data: BoxData, kind: Kind) -> None:
    """Raise `UsageError` where labels are of pictures of another size, or of objects with other points."""
    points = _points(data.objects)
    for one, there, picture in zip(found, data.objects, data.pictures, strict=True):
        if kind is Kind.MASKS and there.size and one.placement and there.size != one.placement.size:
            sizes = ("x".join(map(str, size)) for size in (there.size, one.placement.size))
            why = " against ".join(sizes)
            raise UsageError("the labels are of a picture of another size", where=str(picture), why=why)
        if kind is Kind.KEYPOINTS:
            ours = points if one.keypoints is None else one.keypoints.shape[1]
            theirs = there.keypoints.shape[1] if there.keypoints is not None and len(there.labels) else points
            if ours != points or theirs != points:
                why = f"the model gives {ours}, and the labels have {theirs if theirs != points else points}"
                raise UsageError("objects have another number of keypoints", where=str(picture), why=why)


def _truth(objects: Iterable[LabelledBoxes], kind: Kind) -> dict[str, list[dict[str, object]]]:
    items: list[dict[str, object]] = []
    images = list(objects)
    sizes = [one.size or (0, 0) for one in images]
    for image, one in enumerate(images):
        sides = np.hstack([one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2]])
        for place, (box, label) in enumerate(zip(sides.tolist(), one.labels, strict=True)):
            item: dict[str, object] = {"id": len(items) + 1, "image_id": image, "category_id": int(label)}
            item |= {"bbox": box, "area": float(one.areas[place]), "iscrowd": int(one.crowds[place])}
            if kind is Kind.MASKS and one.outlines is not None:
                item["segmentation"] = one.outlines[place]
            if kind is Kind.KEYPOINTS and one.keypoints is not None:
                points = one.keypoints[place]
                item |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            items.append(item)
    used = np.unique(np.concatenate([one.labels for one in images])).tolist()
    return {
        "images": [{"id": image, "height": height, "width": width} for image, (height, width) in enumerate(sizes)],
        "annotations": items,
        "categories": [{"id": int(label)} for label in used],
    }


def _rows(found: Sequence[Detections], classes: Sequence[int], kind: Kind) -> np.ndarray | list[dict[str, object]]:
    """What was found as pycocotools takes it: of boxes a table ``f64[n, 7]`` of image, x, y, width, height, score and
    class. Keypoints that are not there lie at 0, 0, as COCO has them."""
    table = np.array([*classes, -1], np.int64)
    parts, items = [np.zeros((0, 7))], []
    for image, one in enumerate(found):
        labels = table[np.where((one.labels >= 0) & (one.labels < len(classes)), one.labels, len(classes))]
        sides = [one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2], one.scores[:, None], labels[:, None]]
        parts.append(np.hstack([np.full((len(labels), 1), image), *sides])[labels >= 0])
        for place in np.flatnonzero(labels >= 0).tolist() if kind is not Kind.BOXES else ():
            item: dict[str, object] = {"image_id": image, "category_id": int(labels[place])}
            item["score"] = float(one.scores[place])
            if kind is Kind.MASKS and one.runs is not None:
                item["segmentation"] = one.runs[place]
            elif one.keypoints is not None:
                points = np.nan_to_num(one.keypoints[place], nan=0.0)
                item["keypoints"] = np.hstack([points, np.ones((len(points), 1))]).ravel().tolist()
            items.append(item)
    return np.concatenate(parts) if kind is Kind.BOXES else items

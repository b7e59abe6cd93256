"""Pictures with labels in COCO's JSON: boxes, outlines and keypoints of objects, named as ``FOLDER:FILE.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lvc.compiler.data.images import is_image_name, read_bounded
from lvc.compiler.data.labelled import BoxData, LabelledBoxes, Outline, Truth, placed
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

_MOST_JSON = 2 << 30
_MOST_OUTLINE = 1 << 22
"""Pixels along the outline of an object, and runs of it; pycocotools allots memory for each."""

_NAMED = re.compile(r"(.+):(.+\.json)", re.IGNORECASE)


@dataclass(frozen=True)
class CocoFiles:
    """A folder of pictures, and the JSON that says what they show."""

    folder: Path
    annotations: Path

    @classmethod
    def named(cls, text: str) -> CocoFiles | None:
        """Read ``FOLDER:FILE.json``; None for another text."""
        match = _NAMED.fullmatch(text)
        return cls(Path(match[1]), Path(match[2])) if match else None

    def check(self) -> None:
        """Raise `UsageError` where one of the two is not there."""
        if not self.folder.is_dir():
            what = f"'{self.folder}' is no folder of pictures"
            raise UsageError(what, help="name the folder that the annotations' file names are in: FOLDER:FILE.json")
        if not self.annotations.is_file():
            raise UsageError(f"cannot read '{self.annotations}'", why="there is no such file")

    def read(self) -> BoxData:
        """Read what the pictures show, in the order of their ids. Classes are the categories in the order of their
        ids, from 0. `UsageError` for what is not COCO's JSON."""
        self.check()
        try:
            told = json.loads(read_bounded(self.annotations, _MOST_JSON))
            categories = {int(item["id"]): str(item["name"]) for item in told["categories"]}
            order = {category: place for place, category in enumerate(sorted(categories))}
            images = {int(item["id"]): item for item in sorted(told["images"], key=lambda item: int(item["id"]))}
            names = {image: str(item["file_name"]) for image, item in images.items()}
            of_image: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
            for item in told["annotations"]:
                of_image[int(item["image_id"])].append(item)
            objects = tuple(_objects(items, images[image], order) for image, items in of_image.items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"'{self.annotations}' is not COCO's JSON", why=why) from error
        if not images:
            raise UsageError(f"'{self.annotations}' names no pictures")
        if len(set(names.values())) < len(names):
            raise UsageError(f"'{self.annotations}' names a picture twice")
        pictures = tuple(self._picture(name) for name in names.values())
        return BoxData(pictures, objects, tuple(categories[category] for category in order))

    def _picture(self, name: str) -> Path:
        """A picture by the name that annotations give it, which must stay in the folder."""
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or not is_image_name(name):
            raise UsageError(f"'{name}' names no picture of '{self.folder}'", where=str(self.annotations))
        if not (self.folder / path).is_file():
            raise UsageError(f"there is no picture '{self.folder / path}'", where=str(self.annotations))
        return self.folder / path


def truth_at(data: BoxData, place: int, preprocess: Preprocess) -> Truth:
    """What the picture at a place shows."""
    picture = data.pictures[place]
    return Truth(picture, placed(picture, preprocess), data.objects[place], names=data.names)


def _objects(items: Sequence[dict[str, Any]], image: dict[str, Any], order: dict[int, int]) -> LabelledBoxes:
    """The objects of an image; outlines and keypoints where all of them have some."""
    boxes, areas = [], []
    for item in items:
        x, y, width, height = map(float, item["bbox"])
        areas.append(float(item.get("area", width * height)))
        if not all(map(math.isfinite, (x, y, width, height, areas[-1]))) or min(width, height) < 0:
            raise ValueError(f"the box of annotation {item.get('id')} is none")
        boxes.append((x, y, x + width, y + height))
    has_sizes = "height" in image and "width" in image
    size = (int(image["height"]), int(image["width"])) if has_sizes else None
    outlines = None
    if size and all(item.get("segmentation") for item in items):
        outlines = tuple(_outline(item["segmentation"], size, item.get("id")) for item in items)
    keypoints = None
    if all("keypoints" in item for item in items):
        keypoints = _keypoints([item["keypoints"] for item in items])
    return LabelledBoxes(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([order[int(item["category_id"])] for item in items], np.int64),
        np.array(areas, np.float64),
        np.array([bool(item.get("iscrowd")) for item in items], bool),
        outlines,
        size,
        keypoints,
    )


def _keypoints(rows: Sequence[Sequence[float]]) -> np.ndarray:
    points = np.array(rows, np.float64).reshape(len(rows), -1, 3) if rows else np.zeros((0, 0, 3))
    if not np.isfinite(points).all():
        raise ValueError("a keypoint is not finite")
    return points


def _outline(found: Any, size: tuple[int, int], name: object) -> Outline:
    """An outline that pycocotools can take without harm; `ValueError` for another."""
    what = f"the segmentation of annotation {name}"
    if isinstance(found, dict):
        counts = found["counts"]
        runs = _runs(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if tuple(map(int, found["size"])) != size or len(runs) > _MOST_OUTLINE:
            raise ValueError(f"{what} is of another size than its image")
        if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError(f"{what} does not cover its image")
        return {"size": list(size), "counts": runs}
    polygons = [[float(number) for number in polygon] for polygon in found]
    length = 0.0
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
            raise ValueError(f"{what} has a polygon that is none")
        corners = list(zip(polygon[::2], polygon[1::2], strict=True))
        length += sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in pairwise([*corners, corners[0]]))
        if length > _MOST_OUTLINE or max(map(abs, polygon)) > _MOST_OUTLINE:
            raise ValueError(f"{what} is too large")
    return polygons


def _runs(text: str) -> list[int]:
    """The lengths of runs of COCO's compressed form: groups of five bits from the lowest, 32 more where another group
    follows, all from the character '0' on; from the fourth length on it is the difference from the one before last."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("compressed counts hold what they cannot")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed counts end within a number")
    return runs

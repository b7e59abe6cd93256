"""Pictures with boxes or masks as labels: folders as YOLO has them, COCO's JSON, and masks beside pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvc.compiler.data.images import decode_image, is_image_name, read_bounded
from lvc.compiler.data.placement import Placement
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

IMAGES, LABELS, MASKS = "images", "labels", "masks"
UNKNOWN = 255
"""The class of a mask's pixels that do not count."""

_MOST_JSON = 2 << 30
_MOST_TEXT = 16 << 20
_LAYOUT = "a folder with 'images' and '{kind}' in it, which hold files of the same names"


@dataclass(frozen=True)
class LabelledBoxes:
    """The objects of a picture: corners ``f64[n, 4]``, x1 y1 x2 y2 in its pixels, classes ``i64[n]``, their areas, and
    which of them stand for a crowd, so that finding several in one is no mistake."""

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray

    @classmethod
    def of(cls, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> LabelledBoxes:
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        areas = (corners[:, 2:] - corners[:, :2]).prod(1)
        return cls(corners, np.array(labels, np.int64), areas, np.zeros(len(corners), bool))


@dataclass(frozen=True)
class BoxData:
    """Pictures and their objects; ``names`` are those of the classes where the labels tell them."""

    pictures: tuple[Path, ...]
    objects: tuple[LabelledBoxes, ...]
    names: tuple[str, ...] = ()

    def first(self, limit: int | None) -> BoxData:
        """Those of the first pictures."""
        return BoxData(self.pictures[:limit], self.objects[:limit], self.names)


@dataclass(frozen=True)
class Truth:
    """What a picture shows: its objects, or ``mask``, which reads the class of each pixel. ``placement`` says where it
    lies in the input of a network."""

    picture: Path
    placement: Placement
    objects: LabelledBoxes | None = None
    mask: Callable[[], np.ndarray] | None = None


Known = int | Truth | None
"""What is known of an image: its class, what the picture shows, or nothing."""


def labels_beside(folder: Path) -> str:
    """Which kind of labels lies beside the pictures of a folder, ``labels`` or ``masks``; empty for none."""
    if not (folder / IMAGES).is_dir():
        return ""
    return next((kind for kind in (LABELS, MASKS) if (folder / kind).is_dir()), "")


def truth_of(folder: Path, kind: str, name: str, preprocess: Preprocess) -> Truth:
    """What the picture ``images/name`` of a folder shows, by the labels beside it; `UsageError` if they are none."""
    picture = folder / IMAGES / name
    file = (folder / kind / name).with_suffix(".txt" if kind == LABELS else ".png")
    image = decode_image(read_bounded(picture), str(picture))
    placement = preprocess.placement((image.height, image.width))
    if kind == MASKS:
        return Truth(picture, placement, mask=lambda: read_mask(file))
    return Truth(picture, placement, _yolo(picture, file) if file.is_file() else LabelledBoxes.of([], []))


def open_boxes(data: str, annotations: Path | None) -> BoxData:
    """Open pictures with boxes: a folder as YOLO has it, or one of pictures with COCO's JSON; `UsageError` for others.

    In YOLO's, ``labels/NAME.txt`` has a line for each object of ``images/NAME.jpg``, its class, centre and sides, as
    shares of the picture's; a picture without a file has no object.
    """
    if annotations is not None:
        return _coco(Path(data), annotations)
    pairs = _beside(Path(data), LABELS, ".txt")
    if not any(file.is_file() for _, file in pairs):
        raise UsageError(f"no picture in '{data}' has a file of labels", help=f"give {_LAYOUT.format(kind=LABELS)}")
    objects = [_yolo(picture, file) if file.is_file() else LabelledBoxes.of([], []) for picture, file in pairs]
    return BoxData(tuple(picture for picture, _ in pairs), tuple(objects))


def open_masks(data: str) -> list[tuple[Path, Path]]:
    """Open pictures with masks, ``images/NAME.jpg`` and ``masks/NAME.png``; `UsageError` if one has none."""
    pairs = _beside(Path(data), MASKS, ".png")
    if missing := [file for _, file in pairs if not file.is_file()]:
        raise UsageError(f"there is no mask '{missing[0]}'", help=f"give {_LAYOUT.format(kind=MASKS)}")
    return pairs


def read_mask(file: Path) -> np.ndarray:
    """The class of each pixel, ``i64[height, width]``: numbers of a palette or of grey; `UsageError` for colours."""
    image = decode_image(read_bounded(file), str(file))
    if image.mode not in ("P", "L", "1"):
        help = "a mask has one channel: the number of a pixel's class, 255 where it is not known"
        raise UsageError("the mask holds colours, not classes", where=str(file), why=f"mode {image.mode}", help=help)
    return np.asarray(image).astype(np.int64)


def _beside(data: Path, kind: str, suffix: str) -> list[tuple[Path, Path]]:
    """The pictures of a folder, each with the file of the other kind that has its name."""
    images, others = data / IMAGES, data / kind
    if not images.is_dir() or not others.is_dir():
        raise UsageError(f"'{data}' holds no pictures with {kind}", help=f"give {_LAYOUT.format(kind=kind)}")
    found = sorted(path for path in images.rglob("*") if is_image_name(path.name) and path.is_file())
    if not found:
        raise UsageError(f"there are no images in '{images}'")
    return [(path, (others / path.relative_to(images)).with_suffix(suffix)) for path in found]


def _yolo(picture: Path, file: Path) -> LabelledBoxes:
    image = decode_image(read_bounded(picture), str(picture))
    text = read_bounded(file, _MOST_TEXT).decode(errors="replace")
    boxes, labels = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        values = _numbers(line.split())
        if len(values) != 5 or values[0] < 0 or values[0] != int(values[0]) or min(values[3:]) < 0:
            why = f"it is '{line:.60}', not a class, a centre and sides as shares of the picture's"
            raise UsageError("a line holds no box", where=f"{file}, line {number}", why=why)
        x, y, width, height = (
            share * side for share, side in zip(values[1:], (image.width, image.height) * 2, strict=True)
        )
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        labels.append(int(values[0]))
    return LabelledBoxes.of(boxes, labels)


def _numbers(words: Sequence[str]) -> list[float]:
    """The numbers of a line; none if one of the words is no finite number."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _coco(folder: Path, annotations: Path) -> BoxData:
    """Pictures of a folder with COCO's JSON. Classes are the categories in the order of their ids, from 0."""
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder of pictures", help="give the pictures of the annotations by --data")
    try:
        told = json.loads(read_bounded(annotations, _MOST_JSON))
        categories = {int(item["id"]): str(item["name"]) for item in told["categories"]}
        names = {int(item["id"]): str(item["file_name"]) for item in told["images"]}
        objects: dict[int, list[tuple[Any, ...]]] = {image: [] for image in names}
        order = {category: place for place, category in enumerate(sorted(categories))}
        for item in told["annotations"]:
            x, y, width, height = map(float, item["bbox"])
            area = float(item.get("area", width * height))
            if not all(map(math.isfinite, (x, y, width, height, area))) or min(width, height) < 0:
                raise ValueError(f"the box of annotation {item.get('id')} is none")
            row = ((x, y, x + width, y + height), order[int(item["category_id"])], area, bool(item.get("iscrowd")))
            objects[int(item["image_id"])].append(row)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"'{annotations}' is not COCO's JSON of boxes", why=why) from error
    pictures = {image: _inside(folder, name, annotations) for image, name in sorted(names.items())}
    if not pictures:
        raise UsageError(f"'{annotations}' names no pictures")
    return BoxData(
        tuple(pictures.values()),
        tuple(_of_rows(objects[image]) for image in pictures),
        tuple(categories[category] for category in order),
    )


def _of_rows(rows: Sequence[tuple[Any, ...]]) -> LabelledBoxes:
    boxes, labels, areas, crowds = zip(*rows, strict=True) if rows else ((), (), (), ())
    return LabelledBoxes(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(areas, np.float64),
        np.array(crowds, bool),
    )


def _inside(folder: Path, name: str, annotations: Path) -> Path:
    """A picture by the name that annotations give it, which must stay in the folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not is_image_name(name):
        raise UsageError(f"'{name}' names no picture of '{folder}'", where=str(annotations))
    if not (folder / path).is_file():
        raise UsageError(f"there is no picture '{folder / path}'", where=str(annotations))
    return folder / path

"""Pictures with boxes or masks as labels: what is known of them, folders as YOLO has them, and masks beside pictures.

COCO's JSON is read by `lvc.compiler.data.coco`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvc.compiler.data.images import decode_image, is_image_name, read_bounded
from lvc.compiler.data.placement import Placement
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

IMAGES, LABELS, MASKS = "images", "labels", "masks"
UNKNOWN = 255
"""The class of a mask's pixels that do not count."""

_MOST_TEXT = 16 << 20
_LAYOUT = "a folder with 'images' and '{kind}' in it, which hold files of the same names"


Outline = list[list[float]] | dict[str, list[int]]
"""The polygons of an object, ``x1 y1 x2 y2 ...`` each, or the lengths of its runs as COCO has them uncompressed:
``size``, height and width, and ``counts`` of pixels outside and inside in turns, column by column."""


@dataclass(frozen=True)
class LabelledBoxes:
    """The objects of a picture: corners ``f64[n, 4]``, x1 y1 x2 y2 in its pixels, classes ``i64[n]``, their areas, and
    which of them stand for a crowd, so that finding several in one is no mistake.

    Perhaps ``outlines`` of what each covers of a picture of ``size``, height and width, and ``keypoints f64[n, k, 3]``:
    x, y, and 0 for a point that is not labelled, 1 for one that is hidden, 2 for one that is seen.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    outlines: tuple[Outline, ...] | None = None
    size: tuple[int, int] | None = None
    keypoints: np.ndarray | None = None

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
    lies in the input of a network, ``names`` are those of the classes where the labels tell them."""

    picture: Path
    placement: Placement
    objects: LabelledBoxes | None = None
    mask: Callable[[], np.ndarray] | None = None
    names: tuple[str, ...] = ()


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
    placement = placed(picture, preprocess)
    if kind == MASKS:
        return Truth(picture, placement, mask=lambda: read_mask(file))
    return Truth(picture, placement, _yolo(picture, file) if file.is_file() else LabelledBoxes.of([], []))


def placed(picture: Path, preprocess: Preprocess) -> Placement:
    """Where a picture lies in the input that the preprocessing makes of it."""
    image = decode_image(read_bounded(picture), str(picture))
    return preprocess.placement((image.height, image.width))


def open_boxes(data: str) -> BoxData:
    """Open a folder of pictures with boxes as YOLO has it; `UsageError` for others.

    ``labels/NAME.txt`` has a line for each object of ``images/NAME.jpg``, its class, centre and sides, as shares of the
    picture's; a picture without a file has no object.
    """
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


def checked_mask(mask: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """The mask; `UsageError` if its height and width are not those of its picture."""
    if mask.shape != size:
        sizes = " against ".join("x".join(map(str, one)) for one in (mask.shape, size))
        raise UsageError("the mask is of another size than its picture", where=where, why=sizes)
    return mask


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

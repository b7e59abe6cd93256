"""What `lvc run` says of a picture by the task of the model, and draws onto it: classes, boxes, classes of pixels."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import CLASSIFY, FIND_OBJECTS, SEGMENT

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from lvc.compiler.cli.subject import Subject
    from lvc.compiler.data.feed import Feed
    from lvc.compiler.measure.detections import Detections

_DRAWN_AS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Found(ABC):
    """What was found in one picture, or one row of an array, ``name``; ``labels`` are the names of the classes."""

    name: str
    labels: Sequence[str]

    @abstractmethod
    def to_json(self, options: argparse.Namespace) -> dict[str, Any]:
        """As JSON has it, as far as the options let it be shown."""

    def drawn(self, image: Image.Image, options: argparse.Namespace) -> Image.Image:
        """The picture with it."""
        raise AssertionError(f"{type(self).__name__} is not drawn")

    def label(self, index: int) -> str | None:
        return self.labels[index] if 0 <= index < len(self.labels) else None


@dataclass(frozen=True)
class Classes(Found):
    """How probable each class is, ``f64[C]``."""

    shares: np.ndarray

    def to_json(self, options: argparse.Namespace) -> dict[str, Any]:
        from lvc.compiler.measure.evaluation import best_classes

        (best,) = best_classes(self.shares[None], options.top)
        labels = self.labels if len(self.labels) == len(self.shares) else ()
        top = [
            {"index": int(i), "label": labels[i] if labels else None, "probability": float(self.shares[i])}
            for i in best
        ]
        return {"input": self.name, "top": top}


@dataclass(frozen=True)
class Boxes(Found):
    """Objects in the pixels of the picture, of an array in those of the network's input."""

    found: Detections

    def to_json(self, options: argparse.Namespace) -> dict[str, Any]:
        import numpy as np

        shown = self.found.above(options.score)
        boxes: list[dict[str, Any]] = [
            {"index": index, "label": self.label(index), "score": score, "box": [round(side, 2) for side in corners]}
            for corners, score, index in zip(
                shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), strict=True
            )
        ]
        for place, one in enumerate(boxes):
            if (mask := shown.pixels(place)) is not None:
                one["pixels"] = int(mask.sum())
            if shown.keypoints is not None:
                points = np.round(shown.keypoints[place], 2)
                one["keypoints"] = [None if np.isnan(point).any() else point.tolist() for point in points]
        return {"input": self.name, "boxes": boxes}

    def drawn(self, image: Image.Image, options: argparse.Namespace) -> Image.Image:
        from lvc.compiler.data.drawing import with_boxes, with_masks, with_points

        shown, boxes = self.found.above(options.score), self.to_json(options)["boxes"]
        labels = shown.labels.tolist()
        masks = [(mask, label) for place, label in enumerate(labels) if (mask := shown.pixels(place)) is not None]
        named = [(one["box"], one["index"], f"{one['label'] or one['index']} {one['score']:.2f}") for one in boxes]
        picture = with_boxes(with_masks(image, masks) if masks else image, named)
        if shown.keypoints is not None:
            picture = with_points(picture, list(zip(shown.keypoints, labels, strict=True)))
        return picture


@dataclass(frozen=True)
class Pixels(Found):
    """The class of each pixel, ``i64[height, width]``, -1 where it is not known."""

    classes: np.ndarray

    def to_json(self, options: argparse.Namespace) -> dict[str, Any]:
        import numpy as np

        counts = np.bincount(self.classes[self.classes >= 0], minlength=1)
        order = np.argsort(-counts, kind="stable")[: options.top]
        shares = [
            {"index": int(i), "label": self.label(int(i)), "share": float(counts[i] / max(1, self.classes.size))}
            for i in order
            if counts[i]
        ]
        return {"input": self.name, "classes": shares}

    def drawn(self, image: Image.Image, options: argparse.Namespace) -> Image.Image:
        from lvc.compiler.data.drawing import with_classes

        return with_classes(image, self.classes)


def of_task(subject: Subject, feed: Feed, outputs: tuple[np.ndarray, ...]) -> list[Found]:
    """What the outputs of a run hold by the task of the model, for each picture; nothing where that is not known."""
    placements = feed.placements or (None,) * len(feed.names)
    if subject.task == CLASSIFY:
        from lvc.compiler.measure.evaluation import class_scores, probabilities

        shares = probabilities(class_scores(outputs, len(feed.names)))
        return [Classes(name, subject.labels, row) for name, row in zip(feed.names, shares, strict=False)]
    if subject.task in FIND_OBJECTS:
        from lvc.compiler.measure.detections import detections

        found = detections(subject.outputs, outputs, placements)
        return [Boxes(name, subject.labels, one) for name, one in zip(feed.names, found, strict=False)]
    if subject.task == SEGMENT:
        from lvc.compiler.data.samples import Fit
        from lvc.compiler.measure.detections import class_maps

        maps = class_maps(outputs[0], Fit.of(subject.inputs).picture_size, placements)
        return [Pixels(name, subject.labels, one) for name, one in zip(feed.names, maps, strict=False)]
    return []


def table_of(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
    """Headers, rows and alignment of the table of a result, as `Found.to_json` has it."""
    name = result["input"]
    if "boxes" in result:
        boxes = result["boxes"]
        more = [column for column in ("pixels", "keypoints") if any(column in one for one in boxes)]
        headers = ("score", "class", name, "x1", "y1", "x2", "y2", *more)
        rows = [
            (
                f"{one['score']:.3f}",
                str(one["index"]),
                one["label"] or "",
                *(f"{side:.1f}" for side in one["box"]),
                *(_extent(one[column]) for column in more),
            )
            for one in boxes
        ]
        return headers, rows, "rrlrrrr" + "r" * len(more)
    word, items = ("probability", result["top"]) if "top" in result else ("share", result["classes"])
    return (word, "class", name), [_share(item, word) for item in items], "rrl"


def _extent(found: int | list[list[float] | None]) -> str:
    """How many pixels a mask has, or how many of the keypoints are there."""
    return str(found) if isinstance(found, int) else f"{sum(map(bool, found))} of {len(found)}"


def _share(item: dict[str, Any], word: str) -> tuple[str, ...]:
    return f"{item[word] * 100:.2f} %", str(item["index"]), item["label"] or ""


@dataclass
class Drawn:
    """Pictures with what was found in them: one file, or a folder with one for each; ``written`` are those there."""

    output: Path
    is_folder: bool
    written: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, output: Path | None, files: Sequence[Path]) -> Drawn | None:
        """Pictures if the name of the output asks for them; `UsageError` if they could not be written there."""
        if output is None or (output.suffix and output.suffix.lower() not in _DRAWN_AS and not output.is_dir()):
            return None
        is_folder = output.is_dir() or not output.suffix
        if not is_folder and (len(files) != 1 or files[0].is_dir()):
            raise UsageError(
                f"'{output}' is one picture, and {len(files)} files are given", help="name a folder: -o pictures/"
            )
        if not is_folder:
            from lvc.compiler.files import check_writable

            check_writable(output)
        return cls(output, is_folder)

    def check(self, subject: Subject) -> None:
        """Raise `UsageError` for a model that finds nothing that could be drawn."""
        if subject.task not in (*FIND_OBJECTS, SEGMENT):
            outputs = ", ".join(map(str, subject.outputs))
            raise UsageError(
                f"there is nothing to draw into '{self.output}'",
                why=f"the model neither detects nor segments: its outputs are {outputs}",
                help="compile it with --postprocess, or say --task segment; '-o FILE.npz' writes outputs as they are",
            )

    def write(self, found: Sequence[Found], options: argparse.Namespace) -> None:
        """Draw onto each picture and write it; `UsageError` for what was read from no picture."""
        import io

        from lvc.compiler.data.images import decode_image, is_image_name, read_bounded
        from lvc.compiler.files import write_atomically

        for one in found:
            if not is_image_name(one.name):
                raise UsageError(f"'{one.name}' is no picture to draw onto", help="give a .jpg, .png or .webp file")
            image = one.drawn(decode_image(read_bounded(Path(one.name)), one.name), options)
            path = self.output / f"{Path(one.name).stem}.png" if self.is_folder else self.output
            if path in self.written:
                raise UsageError(f"two pictures would be written as '{path}'", help="run them one at a time")
            if self.is_folder:
                self.output.mkdir(exist_ok=True)
            buffer = io.BytesIO()
            image.save(buffer, _DRAWN_AS[path.suffix.lower()])
            write_atomically(path, buffer.getvalue())
            self.written.append(path)

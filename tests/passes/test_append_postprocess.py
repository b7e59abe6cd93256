"""Steps behind the outputs of a network: decoders and suppression, as graphs and as built code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import ops

import lvc
from lvc.backends.onnx import BACKEND as ONNX
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.counts import Count, cut
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import task_of
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model
from lvc.passes.postprocess.step import STEPS

SIZE = 64, 96
CELLS = 8 * 12 + 4 * 6 + 2 * 3
CLASSES = 5

seeds = st.integers(0, 2**31)


class Head(nn.Module):
    """A network of three levels that gives what YOLOX's head gives, with the sigmoid applied."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.levels = nn.ModuleList(nn.Conv2d(3, 5 + CLASSES, stride, stride) for stride in (8, 16, 32))

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.cat([level(image * 8).flatten(2) for level in self.levels], 2).transpose(1, 2)
        return torch.cat([rows[..., :4], rows[..., 4:].sigmoid()], 2)


def head(images: int = 1) -> Model:
    return lvc.from_module(Head(), torch.rand(images, 3, *SIZE), name="head")


def appended(model: Model, steps: str) -> Model:
    return Pipeline.parse("O1").with_ends(steps).run(model)[0]


def pictures(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).random((1, 3, *SIZE), np.float32) for seed in range(count)]


def heads(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=random) for shape in shapes]


def decoded(name: str, **values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    found = STEPS.parse(name)(values, SIZE)
    assert isinstance(found, dict)
    return found["boxes"].numpy(), found["scores"].numpy()


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_yolox_places_boxes_by_cells(seed: int) -> None:
    (raw,) = heads(seed, (2, CELLS, 5 + CLASSES))
    boxes, scores = decoded("yolox", out=raw)
    at = 0
    for stride in (8, 16, 32):
        for row in range(SIZE[0] // stride):
            for column in range(SIZE[1] // stride):
                x, y, width, height = raw[1, at, :4].double().numpy()
                centre = np.array([column + x, row + y]) * stride
                half = np.exp([width, height]) * stride / 2
                np.testing.assert_allclose(boxes[1, at], [*(centre - half), *(centre + half)], rtol=1e-5, atol=1e-4)
                at += 1
    assert at == CELLS
    np.testing.assert_allclose(scores, raw[..., 4:5] * raw[..., 5:], rtol=1e-6)
    _, of_logits = decoded("yolox{logits=true}", out=raw)
    np.testing.assert_allclose(of_logits, raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid(), rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_other_heads(seed: int) -> None:
    v5, v8, ssd, classes, square = heads(
        seed, (1, 3 * CELLS, 5 + CLASSES), (1, 4 + CLASSES, CELLS), (1, 9, 4), (1, 9, 6), (1, 9, 4)
    )
    to_corners = lambda rows: ops.box_convert(rows, "cxcywh", "xyxy").numpy()  # noqa: E731
    sides = torch.tensor([96.0, 64, 96, 64])
    logits = 4 * classes - 2
    for (boxes, scores), wanted_boxes, wanted_scores in (
        (decoded("yolov5", out=v5), to_corners(v5[..., :4]), v5[..., 4:5] * v5[..., 5:]),
        (decoded("yolov8", out=v8), to_corners(v8[:, :4].transpose(1, 2)), v8[:, 4:].transpose(1, 2)),
        (decoded("ssd", boxes=ssd, scores=classes), (ssd * sides).numpy(), classes[..., 1:]),
        (decoded("ssd{relative=false logits=true}", a=logits, b=ssd), ssd.numpy(), logits.softmax(-1)[..., 1:]),
        (decoded("detr", logits=logits, boxes=square), to_corners(square * sides), logits.sigmoid()),
        (
            decoded("detr{activation=softmax}", l=logits, b=square),
            to_corners(square * sides),
            logits.softmax(-1)[..., :-1],
        ),
    ):
        np.testing.assert_allclose(boxes, wanted_boxes, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores, wanted_scores, rtol=1e-5)


SSD = ([[2], [2, 3], [2, 3], [2]], [0.1, 0.3, 0.5, 0.8, 1.1], [8, 16, 32, 64])


@settings(max_examples=10, deadline=None)
@given(seeds, st.booleans(), st.booleans(), st.sampled_from([SIZE, (60, 100), (97, 64)]))
def test_ssd_moves_default_boxes(seed: int, even: bool, clip: bool, size: tuple[int, int]) -> None:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    ratios, scales, strides = SSD
    generator = DefaultBoxGenerator(ratios, scales=scales, steps=None if even else strides, clip=clip)
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in strides]
    (defaults,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    offsets, logits = heads(seed, (2, len(defaults), 4), (2, len(defaults), 1 + CLASSES))
    offsets = offsets * 8 - 4
    offsets[:, ::7] *= 20
    told = "strides=8,16,32,64 scales=0.1,0.3,0.5,0.8,1.1 ratios=2/2,3/2,3/2"
    step = STEPS.parse(f"ssd-offsets{{{told} even={str(even).lower()} clip={str(clip).lower()}}}")
    found = step({"loc": offsets, "conf": logits}, size)
    assert isinstance(found, dict)
    for image in range(2):
        wanted = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(offsets[image], defaults)
        torch.testing.assert_close(found["boxes"][image], wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["scores"], logits.softmax(-1)[..., 1:])


def test_ssd300_has_as_many_default_boxes_as_torchvision() -> None:
    (offsets, logits) = heads(0, (1, 8732, 4), (1, 8732, 91))
    found = STEPS.parse("ssd-offsets")({"loc": offsets, "conf": logits}, (300, 300))
    assert isinstance(found, dict)
    assert found["scores"].shape == (1, 8732, 90)


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([SIZE, (128, 96), (72, 104)]))
def test_retinanet_moves_anchors(seed: int, size: tuple[int, int]) -> None:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sizes = [tuple(int(side * 2 ** (step / 3)) for step in range(3)) for side in (24, 48)]
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2)
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in (8, 16)]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    offsets, logits = heads(seed, (2, len(anchors), 4), (2, len(anchors), CLASSES))
    offsets = offsets * 8 - 4
    found = STEPS.parse("retinanet{strides=8,16 sides=24,48}")({"bbox": offsets, "cls": logits}, size)
    assert isinstance(found, dict)
    for image in range(2):
        wanted = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(offsets[image], anchors)
        torch.testing.assert_close(found["boxes"][image], wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["scores"], logits.sigmoid())


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_yunet_has_heads_for_each_stride(seed: int) -> None:
    values, parts = {}, {"cls": [], "obj": [], "bbox": []}
    for stride in (8, 16, 32):
        count = (SIZE[0] // stride) * (SIZE[1] // stride)
        for kind, array in zip(parts, heads(seed + stride, (1, count, 1), (1, count, 1), (1, count, 4)), strict=True):
            values[f"{kind}_{stride}"] = array
            parts[kind].append(array)
    boxes, scores = decoded("yunet", **values)
    faces, objects, raw = (torch.cat(found, 1) for found in parts.values())
    np.testing.assert_allclose(scores, (faces * objects).sqrt(), rtol=1e-6)
    as_yolox = torch.cat([raw, faces, objects], 2)
    np.testing.assert_allclose(boxes, decoded("yolox", out=as_yolox)[0], rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_centernet_finds_points_that_are_greater_than_their_neighbours(seed: int) -> None:
    heat, sides, offsets = heads(seed, (2, CLASSES, 8, 12), (2, 2, 8, 12), (2, 2, 8, 12))
    boxes, scores = decoded("centernet{logits=false}", hm=heat, wh=sides, reg=offsets)
    for place in range(8 * 12):
        row, column = divmod(place, 12)
        for label in range(CLASSES):
            around = heat[1, label, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            peak = heat[1, label, row, column]
            assert scores[1, place, label] == (peak if peak == around.max() else 0)
        centre = np.array([column, row]) + offsets[1, :, row, column].numpy()
        half = sides[1, :, row, column].numpy() / 2
        np.testing.assert_allclose(boxes[1, place], np.concatenate([centre - half, centre + half]) * 8, rtol=1e-4)
    _, of_logits = decoded("centernet", hm=heat.logit(), wh=sides, reg=offsets)
    np.testing.assert_allclose(of_logits, scores, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.3, 0.65, 1.0, None]), st.sampled_from(["every", "best"]), st.integers(1, 60))
def test_suppression_is_that_of_torchvision(seed: int, iou: float | None, classes: str, most: int) -> None:
    size = 40
    corners, scores = heads(seed, (size, 4), (size, CLASSES))
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1) * 20
    step = STEPS.parse(
        f"nms{{iou={'none' if iou is None else iou} score=0.4 most={most} candidates=500 classes={classes}}}"
    )
    (found,) = step({"boxes": boxes[None], "scores": scores[None]}, SIZE)
    if classes == "best":
        row, label = torch.arange(size), scores.argmax(1)
    else:
        row, label = (scores > -1).nonzero().unbind(1)
    values = scores[row, label]
    row, label, values = (part[values > 0.4] for part in (row, label, values))
    if iou is None:
        kept = values.argsort(descending=True)[:most]
    else:
        kept = torch.cat(
            [
                row.new_zeros(0),
                *(
                    (label == kind).nonzero()[:, 0][ops.nms(boxes[row[label == kind]], values[label == kind], iou)]
                    for kind in range(CLASSES)
                ),
            ]
        )
        kept = kept[values[kept].argsort(descending=True)][:most]
    count = len(kept)
    assert (found["scores"][:count] == values[kept]).all()
    assert (found["labels"][:count] == label[kept]).all()
    assert (found["boxes"][:count] == boxes[row[kept]]).all()


def test_a_model_gives_lists_of_boxes() -> None:
    model = head()
    made = appended(model, "yolox,nms{score=0.95 candidates=250}")
    assert [str(value) for value in made.outputs] == [
        "boxes: f32[100,4]", "scores: f32[100]", "labels: i64[100]", "boxes_count: i64[]"
    ]  # fmt: skip
    assert set(made.counts.values()) == {Count("boxes_count", 0)}
    assert task_of(made.inputs, made.outputs) == "detect"
    step, lengths = STEPS.parse("nms{score=0.95 candidates=250}"), set()
    for picture in pictures(4):
        boxes, scores, labels = cut(made.outputs, made.counts, made(picture))
        decoded_boxes, decoded_scores = decoded("yolox", out=torch.from_numpy(model(picture)[0]))
        (wanted,) = step({"boxes": torch.from_numpy(decoded_boxes), "scores": torch.from_numpy(decoded_scores)}, SIZE)
        count = len(scores)
        lengths.add(count)
        assert 0 < count < 100
        np.testing.assert_allclose(boxes, wanted["boxes"][:count], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(labels, wanted["labels"][:count])
        np.testing.assert_allclose(scores, wanted["scores"][:count], rtol=1e-6)
    assert len(lengths) > 1


def test_several_images_have_lists_of_their_own() -> None:
    one, two = (appended(head(images), "yolox,nms{score=0.95}") for images in (1, 2))
    batch = pictures(2)
    found = cut(two.outputs, two.counts, two(np.concatenate(batch)))
    apart = [array for picture in batch for array in cut(one.outputs, one.counts, one(picture))]
    assert len(found) == len(apart) == 6
    for ours, theirs in zip(found, apart, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_decoder_alone_gives_boxes_and_scores_of_all_cells() -> None:
    made = appended(head(2), "yolox")
    assert [str(value) for value in made.outputs] == [f"boxes: f32[2,{CELLS},4]", f"scores: f32[2,{CELLS},{CLASSES}]"]
    assert not made.counts


@pytest.mark.parametrize(
    ("steps", "message", "why"),
    [
        ("yolov8,nms", "'yolov8' does not fit", rf"\[images, 4\+classes, {CELLS}\].* output: f32\[1,{CELLS},10\]"),
        ("yolox{strides=16}", "'yolox' does not fit", r"takes one output \[images, 24, 5"),
        ("yunet", "'yunet' does not fit", r"'cls_8' \[images, 96, 1\]"),
        ("centernet", "'centernet' does not fit", r"a heat map \[images, classes, h, w\]"),
        ("nms", "'nms' does not fit", "as a decoder gives them; it is given output: "),
        ("yolox,nms,nms", "'nms' cannot follow", "gives lists"),
    ],
)  # fmt: skip
def test_heads_that_do_not_fit(steps: str, message: str, why: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        appended(head(), steps)
    assert re.search(why, caught.value.why)


def test_the_steps_that_would_fit_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        appended(head(), "yolov8,nms")
    assert caught.value.help == "'yolox' would fit"
    with pytest.raises(UsageError) as caught:
        appended(lvc.from_module(nn.Conv2d(3, 2, 1), torch.rand(1, 3, *SIZE), name="none"), "yolox")
    assert caught.value.help == "none of the steps would fit"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("yolo", "there is no step 'yolo'"),
        ("yolox,", "a step is missing after the comma"),
        ("yolox{stride=8}", "has no option 'stride'"),
        ("nms{iou=2}", "iou must be from 0 to 1"),
        ("nms{score=1}", "score must be from 0 to below 1"),
        ("nms{most=400}", "most must be from 1, and at most candidates"),
        ("yolox{strides=0}", "strides must be numbers of pixels"),
        ("ssd-offsets{scales=0.1,0.2}", "scales must be 7 numbers above 0"),
        ("ssd-offsets{ratios=2/3}", "ratios must be given for 6 levels"),
        ("ssd-offsets{ratios=2/2/2/x/2/2}", "ratios must be given for 6 levels"),
        ("ssd-offsets{variances=0,1}", "variances must be two numbers above 0"),
        ("retinanet{sides=32}", "sides must be 5 numbers of pixels"),
        ("retinanet{steps=0}", "steps must be from 1"),
        ("", "steps names no step"),
    ],
)
def test_steps_that_are_none(steps: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline.parse("O1").with_ends(steps)


def test_the_text_of_a_pipeline_with_steps_is_read_again() -> None:
    pipeline = Pipeline.parse("O1").with_ends("yolox,nms{iou=0.5 classes=best}")
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_onnx_gives_the_same_boxes_and_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = appended(head(), "yolox,nms{score=0.95}")
    write_model(made, tmp_path / "boxes.onnx")
    run = ONNX.load(ONNX.build(made, Target.parse("onnx"), Workspace()), threads=1)
    again = from_onnx(tmp_path / "boxes.onnx")
    assert again.counts == made.counts
    assert again.outputs == made.outputs
    for picture in pictures(3):
        wanted = made(picture)
        for results in (run(picture), again(picture)):
            for ours, theirs in zip(results, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_the_command_line_appends_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(head(), tmp_path / "head.onnx")
    file = str(tmp_path / "head.onnx")
    target = str(tmp_path / "boxes.lvc")
    assert main(["compile", file, "-t", "native", "-o", target, "--postprocess", "yolox,nms{score=0.95}"]) == 0
    assert "append-postprocess" in capsys.readouterr().out
    loaded, made = lvc.load(target), appended(head(), "yolox,nms{score=0.95}")
    assert loaded.artefact.metadata["task"] == "detect"
    for picture in pictures(3):
        for ours, theirs in zip(loaded(picture), cut(made.outputs, made.counts, made(picture)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
    assert main(["inspect", target]) == 0
    assert re.search("task +detect", capsys.readouterr().out)
    assert main(["compile", file, "-o", target, "--postprocess", "yolov8"]) == 2
    assert "'yolov8' does not fit the outputs" in capsys.readouterr().err
    assert main(["compile", file, "-o", target, "--task", "detect"]) == 2
    assert "the model does not detect" in capsys.readouterr().err
    assert main(["opt", file, "--postprocess", "yolox", "-o", str(tmp_path / "opt.onnx")]) == 0
    assert [value.name for value in from_onnx(tmp_path / "opt.onnx").outputs] == ["boxes", "scores"]
    assert main(["passes", "nms", "--json"]) == 0
    assert "candidates" in capsys.readouterr().out

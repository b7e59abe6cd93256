"""Where detectors are quantised: boxes and scores, which differ by orders of magnitude, never share a grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

import lvc
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, calls, family, is_call, origin
from lvc.compiler.ir.layers import FLOATING
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.postprocess.step import STEPS
from lvc.passes.quantisation.rules import is_weight

SIZE = 64, 96
CLASSES = 5


class Levels(nn.Module):
    """A trunk of three levels with strides 8, 16 and 32, and on each a branch for boxes and one for scores."""

    def __init__(self, sides: int, scores: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.down = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
        self.box = nn.ModuleList(self._branch(sides) for _ in range(3))
        self.score = nn.ModuleList(self._branch(scores) for _ in range(3))

    def _branch(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, outputs, 1))

    def levels(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        x = self.stem(image).relu()
        for level in range(3):
            x = self.down[level - 1](x).relu() if level else x
            yield self.box[level](x), self.score[level](x)


class Yolox(Levels):
    """Boxes, objectness and classes on top of each other, as YOLOX gives them."""

    def __init__(self) -> None:
        super().__init__(4, 1 + CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        rows = [torch.cat([box, score.sigmoid()], 1).flatten(2) for box, score in self.levels(image)]
        return torch.cat(rows, 2).transpose(1, 2)


class Yolov8(Levels):
    """Shares of lengths and classes joined, parted again, and the shares summed by a convolution, as YOLOv8 does."""

    def __init__(self) -> None:
        super().__init__(16, CLASSES)
        self.sum = nn.Conv2d(4, 1, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.cat([torch.cat(pair, 1).flatten(2) for pair in self.levels(image)], 2)
        sides, scores = rows.split((16, CLASSES), 1)
        shares = sides.view(len(rows), 4, 4, -1).transpose(2, 1).softmax(1)
        near, far = self.sum(shares).view(len(rows), 4, -1).chunk(2, 1)
        boxes = torch.cat([(near + far) / 2, far - near], 1) * 8
        return torch.cat([boxes, scores.sigmoid()], 1)


class Yolov5(nn.Module):
    """One convolution for boxes and scores, as YOLOv5 has it, decoded in the model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.box_and_score = nn.Conv2d(8, 3 * (5 + CLASSES), 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.box_and_score(self.stem(image).relu())
        n, _, h, w = x.shape
        x = x.view(n, 3, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        centres, sides, scores = x.split((2, 2, 1 + CLASSES), 4)
        return torch.cat([centres * 16 - 4, (sides * 2) ** 2 * 8, scores], 4).view(n, -1, 5 + CLASSES)


class Refined(Levels):
    """Boxes that a second layer reads together with no scores, and scores that are multiplied by a quality of boxes."""

    def __init__(self) -> None:
        super().__init__(4, CLASSES)
        self.box_again = nn.Conv2d(4, 4, 1)
        self.score_of_box = nn.Conv2d(4, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [(self.box_again(box), score * self.score_of_box(box)) for box, score in self.levels(image)]
        boxes, scores = (torch.cat([part.flatten(2) for part in parts], 2) for parts in zip(*pairs, strict=True))
        return boxes.transpose(1, 2), scores.transpose(1, 2).sigmoid()


def traced(module: nn.Module) -> Model:
    return lvc.from_module(module.eval(), torch.rand(1, 3, *SIZE), name="detector")


def placed(model: Model, steps: str | None = None) -> Model:
    return Pipeline.parse("O1,insert-fake-quant").with_ends(steps).run(model)[0]


def sources(node: Node) -> Iterator[Node]:
    """The layers whose results reach a value without another layer between."""
    todo, seen = [node], set[Node]()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        if family(one) is Family.CONTRACTION:
            yield one
        else:
            todo += one.all_input_nodes


def grids(model: Model) -> dict[str, set[Node]]:
    """The layers that feed each grid of activations; those of one group are one."""
    found: dict[str, set[Node]] = {}
    for node in calls(model.module.graph, UNCALIBRATED):
        if not is_weight(node):
            found.setdefault(arguments(node)["group"] or node.name, set()).update(sources(node))
    return found


def kinds(layers: set[Node], box: str, score: str) -> set[str]:
    """Whether a grid has results of last layers for boxes, and of such for scores."""
    return {kind for layer in layers for kind, mark in (("box", box), ("score", score)) if mark in origin(layer)}


def check_grids(model: Model, box: str, score: str) -> None:
    assert kinds(set(calls(model.module.graph, *FLOATING)), box, score) == {"box", "score"}
    for name, layers in grids(model).items():
        assert len(kinds(layers, box, score)) < 2, f"{name}: {[origin(layer) for layer in layers]}"


def check_tail(model: Model) -> None:
    """Nothing is quantised behind the last layers."""
    assert any(grids(model).values())
    last = {layer for layer in calls(model.module.graph, *FLOATING) if _is_last(layer)}
    assert last
    behind = set(last)
    for node in calls(model.module.graph):
        if behind.intersection(node.all_input_nodes):
            behind.add(node)
            assert node.target is not UNCALIBRATED, f"{node.name} behind the last layers"


def _is_last(layer: Node) -> bool:
    """Whether no layer reads what comes of it."""
    todo, seen = list(layer.users), set[Node]()
    while todo:
        node = todo.pop()
        if node.op == "call_function" and family(node) is Family.CONTRACTION:
            return False
        if node not in seen:
            seen.add(node)
            todo += node.users
    return True


@pytest.mark.parametrize("steps", [None, "yolox", "yolox,nms"])
def test_yolox(steps: str | None) -> None:
    model = placed(traced(Yolox()), steps)
    check_grids(model, "box.", "score.")
    check_tail(model)


@pytest.mark.parametrize("steps", [None, "yolov8,nms"])
def test_yolov8(steps: str | None) -> None:
    model = placed(traced(Yolov8()), steps)
    both = [name for name, layers in grids(model).items() if len(kinds(layers, "box.", "score.")) > 1]
    assert both == ["softmax_quantised"]
    node = next(node for node in calls(model.module.graph, UNCALIBRATED) if node.name == both[0])
    while not is_call(node, aten.slice.Tensor):
        (node,) = node.all_input_nodes
    args = arguments(node)
    assert (args["dim"], args["start"], args["end"]) == (1, 0, 16)  # of both, the boxes alone
    check_tail(model)


@pytest.mark.parametrize("make", [Yolov5, Refined])
def test_behind_the_last_layers_there_are_floats_alone(make: type[nn.Module]) -> None:
    check_tail(placed(traced(make())))


def test_branches_with_more_layers() -> None:
    check_grids(placed(traced(Refined())), "box_again", "score.")


MARKS = {
    "ssd": ("regression_head", "classification_head"),
    "retinanet": ("bbox_reg", "cls_logits"),
    "fcos": ("bbox_reg", "cls_logits"),
}


@pytest.mark.parametrize("make", [*MARKS, "faster_rcnn"])
def test_detectors_of_torchvision(make: str) -> None:
    pytest.importorskip("torchvision")
    import small_detectors

    model = placed(lvc.from_module(getattr(small_detectors, make)(), torch.rand(1, 3, 56, 72), name=make))
    check_grids(model, *MARKS.get(make, ("bbox_pred", "cls_score")))
    if make in MARKS:
        check_tail(model)


@pytest.mark.parametrize("name", ["yolox_nano", "yunet_n_320"])
@pytest.mark.parametrize("has_steps", [False, True])
def test_trained_detectors(name: str, has_steps: bool, assets: Path) -> None:
    model = lvc.load_model(str(assets / "onnx" / f"{name}.onnx"))
    check_tail(placed(model, f"{name.partition('_')[0]},nms" if has_steps else None))


SHOWN = 0.3


@pytest.mark.slow
def test_trained_boxes_in_integers_are_those_that_python_decodes(assets: Path) -> None:
    """Compiled in and decoded by whoever runs the network, YOLOX finds the same, in float and in integers; and integers
    find what floats find."""
    from coco_score import pictures
    from torchvision.ops import batched_nms, box_iou

    from lvc.compiler.pipeline.workspace import Workspace

    images = [(picture, None) for picture, _, _ in pictures(assets / "coco")]
    model = lvc.load_model(str(assets / "onnx" / "yolox_nano.onnx"))
    tail = f"yolox,nms{{score={SHOWN} candidates=1000}}"
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for pipeline in ("O2", "int8-fast"):
        workspace = Workspace(data={"calib": lambda: images[::4]}, threads=1)
        quantised, _ = Pipeline.parse(pipeline).run(model, workspace)
        raw, whole = (
            lvc.load(lvc.compile(quantised, Pipeline.parse("O1").with_ends(steps), "native", verify=False), threads=1)
            for steps in (None, tail)
        )
        found[pipeline] = []
        for picture, _ in images[1:40:4]:
            boxes, scores, labels = (torch.from_numpy(part) for part in whole(picture))
            decoded = STEPS.parse("yolox")({"out": torch.from_numpy(np.asarray(raw(picture)))}, (416, 416))
            assert isinstance(decoded, dict)
            rows, kinds = (decoded["scores"][0] > SHOWN).nonzero(as_tuple=True)
            values, corners = decoded["scores"][0][rows, kinds], decoded["boxes"][0][rows]
            kept = batched_nms(corners, values, kinds, 0.65)[:100]
            torch.testing.assert_close(scores, values[kept], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(boxes, corners[kept], atol=1e-3, rtol=1e-5)
            assert torch.equal(labels, kinds[kept])
            found[pipeline].append((boxes, scores, labels))
    sure = met = 0
    for (boxes, scores, labels), (ours, _, kinds) in zip(found["O2"], found["int8-fast"], strict=True):
        same = (box_iou(boxes, ours) > 0.7) & (labels[:, None] == kinds)
        sure += int((scores > 0.5).sum())
        met += int(same.any(1)[scores > 0.5].sum()) if len(ours) else 0
    assert sure > 10
    assert met >= 0.9 * sure

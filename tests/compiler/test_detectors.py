"""torchvision's detectors, from image to boxes, against themselves in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lvc
from lvc.compiler.driver import optimise
from lvc.compiler.ir.counts import cut
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import calls, family, op_name, origin
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytest.importorskip("torchvision")
import small_detectors as small
from found_objects import SIZE, check, pictures

DETECTORS = [
    small.ssd,
    small.retinanet,
    small.fcos,
    small.faster_rcnn,
    small.few_places,
    small.mask_rcnn,
    small.keypoint_rcnn,
]


@cache
def traced(make: Callable[[], nn.Module]) -> tuple[nn.Module, Model]:
    detector = make()
    model = from_module(detector, torch.rand(1, 3, *SIZE))
    verify(model)
    return detector, model


def eager(detector: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        found: dict[str, Tensor] = detector(list(torch.from_numpy(image)))[0]
    return {name: part.numpy() for name, part in found.items()}


@pytest.mark.parametrize("make", DETECTORS)
def test_detectors_find_what_they_find_in_eager_pytorch(make: Callable[[], nn.Module]) -> None:
    detector, model = traced(make)
    assert {"boxes", "scores", "labels"} <= set(model.output_names)
    assert model.output_names[-1] == "boxes_count"
    counts = [
        check(model.output_names[:-1], cut(model.outputs, model.counts, model(image)), eager(detector, image))
        for image in pictures()
    ]
    assert min(counts) < max(counts)


@pytest.mark.parametrize("make", DETECTORS)
def test_built_detectors_find_the_same(make: Callable[[], nn.Module]) -> None:
    detector, model = traced(make)
    run = lvc.load(lvc.compile(model, "O2", "native", verify=False))
    for image in pictures()[:4]:
        found = run(image)
        assert isinstance(found, tuple)
        check(model.output_names[:-1], found, eager(detector, image))


def test_a_detector_that_finds_nothing_gives_empty_arrays() -> None:
    detector = small.ssd()
    detector.score_thresh = 2.0
    model = from_module(detector, torch.rand(1, 3, *SIZE))
    image = pictures()[0]
    found = cut(model.outputs, model.counts, model(image))
    assert check(model.output_names[:-1], found, eager(detector, image)) == 0
    assert [part.shape for part in found] == [(0, 4), (0,), (0,)]


def test_what_finds_objects_stays_in_float() -> None:
    """Boxes and scores, which differ by orders of magnitude, are on no grid, and so share none."""
    _, model = traced(small.ssd)
    images = [np.random.default_rng(seed).random((1, 3, *SIZE), np.float32) for seed in range(4)]
    workspace = Workspace(data={"calib": lambda: [(image, None) for image in images]}, threads=1)
    quantised, _ = optimise(model, Pipeline.parse("int8-fast"), workspace)
    heads = [node for node in calls(quantised.module.graph, aten.conv2d.default) if "head" in origin(node)]
    assert len(heads) == 4
    assert all(family(node.args[0]) is Family.QUANTISATION for node in heads)  # type: ignore[arg-type]
    behind = set(heads)
    for node in calls(quantised.module.graph):
        if behind.intersection(node.all_input_nodes):
            behind.add(node)
            assert family(node) is not Family.QUANTISATION
    assert {"lvc.argsort", "lvc.nms"} <= {op_name(node) for node in behind}

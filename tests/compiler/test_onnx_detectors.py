"""torchvision's detectors as PyTorch exports them to ONNX, from image to boxes, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lvc

pytest.importorskip("torchvision")
import small_detectors as small
from found_objects import SIZE, check, pictures

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's


class OfOneImage(nn.Module):
    """A detector of one image, with what it finds as a tuple."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.detector([image[0]])[0].values())


def exported(make: Callable[[], nn.Module], folder: Path) -> tuple[Path, list[str]]:
    """The file, and the names of what is found, in order."""
    detector, image, file = make(), torch.rand(1, 3, *SIZE), folder / "detector.onnx"
    with torch.no_grad():
        names = list(detector([image[0]])[0])
    arguments = {"dynamo": False, "opset_version": 17, "input_names": ["image"], "output_names": names}
    torch.onnx.export(OfOneImage(detector).eval(), (image,), str(file), **arguments)
    return file, names


DETECTORS = [
    small.ssd,
    small.retinanet,
    small.fcos,
    small.faster_rcnn,
    small.few_places,
    small.mask_rcnn,
    small.keypoint_rcnn,
]


@pytest.mark.parametrize("make", DETECTORS)
def test_exported_detectors_find_the_same(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    file, names = exported(make, tmp_path)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    artefact = lvc.compile(str(file))
    assert not artefact.metadata["remarks"]
    assert artefact.metadata["task"] == {"masks": "instance", "keypoints_scores": "pose"}.get(names[-1], "detect")
    run, counts = lvc.load(artefact), []
    for image in pictures():
        wanted = dict(zip(names, session.run(None, {"image": image}), strict=True))
        found = run(image)
        assert isinstance(found, tuple)
        counts.append(check(names, found, wanted))
    assert min(counts) < max(counts)

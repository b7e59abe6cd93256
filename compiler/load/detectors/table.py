"""Which classes of torchvision are detectors, and what takes the place of which of their methods."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from unittest import mock

from torch import Tensor, nn

from lvc.compiler.load.detectors import dense, ssd

_FAMILIES = {
    "ssd.SSD": ssd.postprocess_detections,
    "retinanet.RetinaNet": dense.retinanet_detections,
    "fcos.FCOS": dense.fcos_detections,
    "generalized_rcnn.GeneralizedRCNN": None,
}
"""Classes of ``torchvision.models.detection``, and their ``postprocess_detections`` of fixed shapes; None where that
which is traced of their own serves."""


class BatchOfImages(nn.Module):
    """A detector that takes images ``f32[images, 3, height, width]``, and returns what it returns of a list of them."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = self.detector(list(images.unbind(0)))
        return found


def taking_a_batch(module: nn.Module) -> nn.Module:
    """A module that takes tensors: one of torchvision's detectors is wrapped, any other is itself."""
    return BatchOfImages(module) if any(isinstance(module, kind) for kind, _ in _known()) else module


@contextlib.contextmanager
def static_detections() -> Iterator[None]:
    """Within it detectors find objects by forms of fixed shapes."""
    with contextlib.ExitStack() as stack:
        for kind, form in _known():
            if form is not None:
                stack.enter_context(mock.patch.object(kind, "postprocess_detections", form))
        yield


def _known() -> Iterator[tuple[type[nn.Module], object]]:
    """The classes that somebody has imported: a detector is there only then."""
    for place, form in _FAMILIES.items():
        file, _, name = place.partition(".")
        module = sys.modules.get(f"torchvision.models.detection.{file}")
        if module is not None:
            yield getattr(module, name), form

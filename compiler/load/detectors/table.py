"""Which classes of torchvision are detectors, and what takes the place of which of their methods."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

from torch import Tensor, nn

from lvc.compiler.load.detectors import dense, keypoints, masks, pyramid, ssd

_CLASSES = (
    "models.detection.ssd:SSD",
    "models.detection.retinanet:RetinaNet",
    "models.detection.fcos:FCOS",
    "models.detection.generalized_rcnn:GeneralizedRCNN",
)
"""The detectors of torchvision, by module and name."""

_FORMS: dict[str, object] = {
    "models.detection.ssd:SSD.postprocess_detections": ssd.postprocess_detections,
    "models.detection.retinanet:RetinaNet.postprocess_detections": dense.retinanet_detections,
    "models.detection.fcos:FCOS.postprocess_detections": dense.fcos_detections,
    "models.detection.transform:paste_masks_in_image": masks.paste_masks_in_image,
    "models.detection.roi_heads:heatmaps_to_keypoints": keypoints.heatmaps_to_keypoints,
    "ops.poolers:_multiscale_roi_align": pyramid.multiscale_roi_align,
}
"""What of them has a form of fixed shapes; the rest is traced as it is."""


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
    return BatchOfImages(module) if any(isinstance(module, kind) for kind in _known(_CLASSES)) else module


@contextlib.contextmanager
def static_detections() -> Iterator[None]:
    """Within it detectors find objects by forms of fixed shapes."""
    with contextlib.ExitStack() as stack:
        for place, form in _FORMS.items():
            owner, _, name = place.rpartition("." if "." in place.partition(":")[2] else ":")
            for found in _known([owner]):
                stack.enter_context(mock.patch.object(found, name, form))
        yield


def _known(places: Iterable[str]) -> Iterator[Any]:
    """What lies at places of torchvision, if somebody has imported it: a detector exists then."""
    for place in places:
        file, _, name = place.partition(":")
        module = sys.modules.get(f"torchvision.{file}")
        if module is not None:
            yield getattr(module, name) if name else module

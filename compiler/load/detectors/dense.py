"""RetinaNet and FCOS: candidates are the best pairs of an anchor and a class on each level of the pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lvc.compiler.ir.operators import ordering
from lvc.compiler.load.detectors.boxes import best_pairs, clipped, detections

Levels = dict[str, list[Tensor]]
Shapes = list[tuple[int, int]]


def retinanet_detections(self: Any, head_outputs: Levels, anchors: list[list[Tensor]], image_shapes: Shapes) -> Any:
    """What `torchvision.models.detection.retinanet.RetinaNet` does, with its own names for what it reads."""
    scores, codes = [logits.sigmoid() for logits in head_outputs["cls_logits"]], head_outputs["bbox_regression"]
    return _found(self, scores, codes, anchors, image_shapes, decode=self.box_coder.decode_single)


def fcos_detections(self: Any, head_outputs: Levels, anchors: list[list[Tensor]], image_shapes: Shapes) -> Any:
    """What `torchvision.models.detection.fcos.FCOS` does."""
    pairs = zip(head_outputs["cls_logits"], head_outputs["bbox_ctrness"], strict=True)
    scores = [(logits.sigmoid() * centred.sigmoid()).sqrt() for logits, centred in pairs]
    codes = head_outputs["bbox_regression"]
    return _found(self, scores, codes, anchors, image_shapes, decode=self.box_coder.decode)


def _found(
    self: Any,
    scores: Sequence[Tensor],
    regression: Sequence[Tensor],
    anchors: Sequence[Sequence[Tensor]],
    image_shapes: Shapes,
    *,
    decode: Callable[[Tensor, Tensor], Tensor],
) -> list[dict[str, Tensor]]:
    found = []
    for image, shape in enumerate(image_shapes):
        parts = []
        for of_level, codes, places in zip(scores, regression, anchors[image], strict=True):
            values, anchor, label = best_pairs(of_level[image], self.topk_candidates)
            boxes = decode(codes[image].index_select(0, anchor), places.index_select(0, anchor))
            parts.append((clipped(boxes, shape), values, label))
        boxes, values, labels = (torch.cat(kind) for kind in zip(*parts, strict=True))
        order = ordering.argsort(values, True)
        boxes, values, labels = (kind.index_select(0, order) for kind in (boxes, values, labels))
        keep = ordering.nms(boxes, values > self.score_thresh, self.nms_thresh, labels)
        found.append(detections(boxes, values, labels, keep, self.detections_per_img))
    return found

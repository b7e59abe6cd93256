"""SSD and SSDlite: the best candidates of each class are a row, and each row is suppressed on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lvc.compiler.ir.operators import ordering
from lvc.compiler.load.detectors.boxes import best, clipped, detections


def postprocess_detections(
    self: Any, head_outputs: dict[str, Tensor], image_anchors: list[Tensor], image_shapes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """What `torchvision.models.detection.ssd.SSD` does, with its own names for what it reads."""
    found = []
    scores_of_images = head_outputs["cls_logits"].softmax(-1)
    for regression, scores, anchors, shape in zip(
        head_outputs["bbox_regression"], scores_of_images, image_anchors, image_shapes, strict=True
    ):
        boxes = clipped(self.box_coder.decode_single(regression, anchors), shape)
        classes, most = scores.shape[1] - 1, min(self.topk_candidates, scores.shape[0])
        rows, order = best(scores[:, 1:].t(), most)
        candidates = boxes.index_select(0, order.reshape(-1))
        valid = rows > self.score_thresh
        keep = ordering.nms(candidates.reshape(classes, most, 4), valid, self.nms_thresh)
        labels = torch.arange(1, classes + 1).reshape(-1, 1).expand(classes, most)
        found.append(
            detections(candidates, rows.reshape(-1), labels.reshape(-1), keep.reshape(-1), self.detections_per_img)
        )
    return found

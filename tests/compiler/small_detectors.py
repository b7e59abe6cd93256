"""torchvision's detectors around tiny networks, with weights drawn so that they find objects."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.keypoint_rcnn import KeypointRCNN, KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

CLASSES = 4


class Pyramid(nn.Module):
    """Two levels of features of an image, ``[n, channels, h / 8, w / 8]`` and half of that."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_channels = channels
        self.first = nn.Conv2d(3, channels, 5, stride=8, padding=2)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.first(x).relu()
        return OrderedDict([("0", first), ("1", self.second(first).relu())])


def drawn(detector: nn.Module, spread: float) -> nn.Module:
    """Weights and biases of a normal distribution, the same in every run."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return detector.eval()


def ssd() -> nn.Module:
    boxes = DefaultBoxGenerator([[2], [2, 3]])
    head = SSDHead([8, 8], boxes.num_anchors_per_location(), CLASSES)
    return drawn(SSD(Pyramid(), boxes, (64, 64), CLASSES, head=head, score_thresh=0.3, topk_candidates=20), 0.2)


def retinanet() -> nn.Module:
    anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2)
    head = RetinaNetHead(8, 4, CLASSES, norm_layer=nn.Identity)
    made = RetinaNet(Pyramid(), CLASSES, 64, 128, anchor_generator=anchors, head=head, topk_candidates=50)
    made.score_thresh = 0.5
    return drawn(made, 0.15)


def fcos() -> nn.Module:
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    made = FCOS(Pyramid(32), CLASSES, 64, 128, anchor_generator=anchors, topk_candidates=50)
    made.score_thresh = 0.5
    return drawn(made, 0.15)


def faster_rcnn() -> nn.Module:
    anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2)
    made = FasterRCNN(
        Pyramid(),
        min_size=64,
        max_size=128,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 2, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU()),
        box_predictor=FastRCNNPredictor(16, CLASSES),
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_test=20,
        box_score_thresh=0.2,
    )
    return drawn(made, 0.3)


def few_places() -> nn.Module:
    """Faster R-CNN that looks at far fewer places than it might, with a threshold below the score of nothing."""
    made = faster_rcnn()
    made.rpn.nms_thresh = 0.02
    made.roi_heads.score_thresh = 0.05
    return made


def mask_rcnn() -> nn.Module:
    anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2)
    made = MaskRCNN(
        Pyramid(),
        min_size=64,
        max_size=128,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 2, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU()),
        box_predictor=FastRCNNPredictor(16, CLASSES),
        mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 4, 2),
        mask_head=MaskRCNNHeads(8, (8,), 1),
        mask_predictor=MaskRCNNPredictor(8, 8, CLASSES),
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_test=10,
        box_score_thresh=0.2,
        box_detections_per_img=12,
    )
    return drawn(made, 0.3)


def keypoint_rcnn() -> nn.Module:
    anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2)
    made = KeypointRCNN(
        Pyramid(),
        min_size=64,
        max_size=128,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 2, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU()),
        box_predictor=FastRCNNPredictor(16, CLASSES),
        keypoint_roi_pool=MultiScaleRoIAlign(["0", "1"], 4, 2),
        keypoint_head=KeypointRCNNHeads(8, (8,)),
        keypoint_predictor=KeypointRCNNPredictor(8, 5),
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_test=10,
        box_score_thresh=0.2,
        box_detections_per_img=12,
    )
    return drawn(made, 0.3)

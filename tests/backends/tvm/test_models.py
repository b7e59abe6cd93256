"""Whole networks against PyTorch."""

from __future__ import annotations

import pytest
import torch
import torchvision
from sketch import check, numbers

from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline


def compare_with_torch(name: str, pipeline: str, size: int = 64) -> None:
    module = getattr(torchvision.models, name)(weights=None).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    model = from_module(module, torch.zeros(1, 3, size, size))
    model, _ = Pipeline.parse(pipeline).run(model)
    check(model, numbers(1, 3, size, size), tolerance=1e-4)


@pytest.mark.parametrize("pipeline", ["O0", "O2"])
def test_shufflenet(pipeline: str) -> None:
    compare_with_torch("shufflenet_v2_x0_5", pipeline)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "swin_t"])
def test_model(name: str) -> None:
    compare_with_torch(name, "O2")

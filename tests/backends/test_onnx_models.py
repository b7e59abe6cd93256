"""Whole models, optimised, written as ONNX and run in ONNX Runtime, give what PyTorch gave before."""

from __future__ import annotations

import pytest
import torch
import torchvision

from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.observers import Drift, Verifier, relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytest.importorskip("onnxruntime")

SLOW = ["resnet18", "shufflenet_v2_x1_0", "densenet121", "googlenet", "convnext_tiny", "vit_b_16", "swin_t"]


def build(name: str) -> Model:
    """A torchvision model with random weights, and statistics like those of a trained one."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return from_module(module, torch.zeros(1, 3, 224, 224), name=name)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_model(name: str) -> None:
    model = build(name)
    optimised, _ = Pipeline.parse("O2").run(model, observers=[Verifier(), Drift()])
    _, again = Pipeline.parse("O2").run(optimised)
    assert [step.outcome.places for step in again if step.outcome.places] == []

    backend = catalogue.BACKENDS.get("onnx")
    run = backend.load(backend.build(optimised, Target.parse("onnx"), Workspace()), threads=1)
    inputs = seeded_inputs(model.inputs, 1)
    for found, wanted in zip(run(*inputs), model(*inputs), strict=True):
        assert relative_difference(found, wanted) < 1e-4

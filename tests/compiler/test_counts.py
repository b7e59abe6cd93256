"""Multiply-accumulates, parameters and memory, against formulas and the numbers that torchvision publishes."""

from __future__ import annotations

import pytest
import torch
import torchvision
from small_models import convolutions, shades

from lvc.compiler.load import from_module
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import Layer, heaviest, totals
from lvc.compiler.running.memory import peak_activation_bytes

PUBLISHED = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "mobilenet_v2": torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
    "squeezenet1_1": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
    "vit_b_16": torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1,
}
SLOW = ("resnet50", "vit_b_16")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PUBLISHED]
)
def test_counts_are_those_that_torchvision_publishes(name: str) -> None:
    with torch.device("meta"):
        shapes_only = getattr(torchvision.models, name)()
    module = shapes_only.to_empty(device="cpu").eval()
    model = from_module(module, torch.zeros(1, 3, 224, 224))
    meta = PUBLISHED[name].meta
    assert totals(layers(model)).macs / 1e9 == pytest.approx(meta["_ops"], abs=0.001)
    buffers = sum(buffer.numel() for key, buffer in module.named_buffers() if not key.endswith("batches_tracked"))
    assert totals(layers(model)).parameters == meta["num_params"] + buffers


def test_every_contraction_is_counted() -> None:
    found = layers(convolutions())
    assert [layer.macs for layer in found if layer.macs] == [
        8 * 8 * 8 * (4 * 9),
        8 * 8 * 8 * 9,
        8 * 8 * 8 * (3 * 4),
        6 * 16 * 16 * 16,
        6 * 16 * 16 * 16,
        6 * 16 * 16 * 16,
    ]
    assert [layer.macs for layer in found if layer.op in ("relu", "permute")] == [0, 0]


def test_a_shared_weight_counts_once() -> None:
    model = convolutions()
    linear = [layer.parameters for layer in layers(model) if layer.op == "linear"]
    assert linear == [16 * 16 + 16, 0]
    summed = totals(layers(model))
    assert (summed.parameters, summed.weight_bytes) == (model.parameters, model.bytes)


def test_layers_tell_output_and_origin() -> None:
    first = layers(convolutions())[0]
    assert (first.op, first.output, first.activation_bytes) == ("conv2d", "f32[1,8,8,8]", 4 * 8 * 8 * 8)
    assert first.origin == "first"


def test_heaviest_layers_come_first() -> None:
    found = layers(convolutions())
    assert [layer.macs for layer in heaviest(found, 4)] == [24576, 24576, 24576, 18432]


def test_peak_of_intermediate_results() -> None:
    """By hand: both results of the last two calls, 1536 elements each, and the permuted one that the last reads."""
    assert peak_activation_bytes(convolutions()) == 4 * 3 * 1536
    assert peak_activation_bytes(shades()) == 4 * (3 * 64 + 1)


def test_layers_survive_json() -> None:
    for layer in layers(convolutions()):
        assert Layer.from_json(layer.to_json()) == layer


@pytest.mark.parametrize("change", [{"macs": "many"}, {"macs": True}, {"node": 3}, {"parameters": None}])
def test_damaged_layers_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="of a layer is"):
        Layer.from_json({**layers(shades())[0].to_json(), **change})

"""Modules whose state says more than the operator that they call: their mode, what they keep, what they were given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from traced import draw, op_names, traced

import lvc
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import relative_difference

IMAGE, SIGNAL, VOLUME = (2, 8, 6, 5), (2, 8, 9), (2, 8, 3, 4, 5)

NORMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    **{
        f"{kind.__name__}-{tracked}-{affine}-{momentum}": (
            kind(8, affine=affine, track_running_stats=tracked, momentum=momentum),
            IMAGE,
        )
        for kind in (nn.BatchNorm2d, nn.InstanceNorm2d)
        for tracked in (True, False)
        for affine in (True, False)
        for momentum in (0.1, None)
    },
    "instance-1d": (nn.InstanceNorm1d(8, track_running_stats=True), SIGNAL),
    "instance-1d-without-batch": (nn.InstanceNorm1d(8, affine=True, track_running_stats=True), SIGNAL[1:]),
    "instance-3d": (nn.InstanceNorm3d(8, track_running_stats=True), VOLUME),
    "batch-1d": (nn.BatchNorm1d(8, track_running_stats=False), SIGNAL),
    "batch-rows": (nn.BatchNorm1d(8, track_running_stats=False), (5, 8)),
    "batch-3d": (nn.BatchNorm3d(8), VOLUME),
    "sync": (nn.SyncBatchNorm(8), IMAGE),
    "sync-without-statistics": (nn.SyncBatchNorm(8, track_running_stats=False), IMAGE),
    "group": (nn.GroupNorm(4, 8, affine=False), IMAGE),
    "layer": (nn.LayerNorm((6, 5), elementwise_affine=False), IMAGE),
    "layer-without-bias": (nn.LayerNorm(5, bias=False), IMAGE),
    "rms": (nn.RMSNorm((6, 5), eps=0.1, elementwise_affine=False), IMAGE),
    "local-response": (nn.LocalResponseNorm(4, 0.1, 0.5, 2), IMAGE),
}


def trained(module: nn.Module) -> nn.Module:
    """Give a layer statistics and an affine map that a network could have learnt."""
    generator = torch.Generator().manual_seed(3)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            low = -1.0 if name.endswith(("mean", "bias")) else 0.3
            value.data.uniform_(low, 2, generator=generator)
    return module


@pytest.mark.parametrize("name", NORMS)
def test_normalisation_is_that_of_evaluation_mode(name: str) -> None:
    module, shape = NORMS[name]
    traced(trained(module), *draw(shape), bound=2e-6)


def test_instance_norm_by_stored_statistics_folds_like_a_batch_norm() -> None:
    model = traced(trained(nn.InstanceNorm2d(8, track_running_stats=True)), *draw(IMAGE))
    assert op_names(model) == ["batch_norm"]


class Side(nn.Module):
    """All layers on inputs of their own."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *x: Tensor) -> list[Tensor]:
        return [layer(part) for layer, part in zip(self.layers, x, strict=True)]


def test_built_normalisation_is_that_of_evaluation_mode() -> None:
    inputs = draw(*(shape for _, shape in NORMS.values()))
    model = from_module(Side([trained(module) for module, _ in NORMS.values()]), *inputs)
    assert model.reference
    arrays = [x.numpy() for x in inputs]
    found = lvc.load(lvc.compile(model, "O2", "native"))(*arrays)
    for name, ours, theirs in zip(NORMS, found, model.reference.run(arrays), strict=True):
        assert relative_difference(np.asarray(ours), theirs) <= 5e-6, name

"""A loaded model knows what its source computes by itself, whatever tracing left behind in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from traced import draw

from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module, load
from lvc.compiler.load.torch_importer import from_own_module
from lvc.compiler.pipeline.observers import relative_difference


class Remembers(nn.Module):
    """Keeps a grid of the size of its last input, writes into its input, and counts its runs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.grids: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        key = tuple(x.shape[-2:])
        if key not in self.grids:
            self.grids[key] = torch.arange(float(key[1]), device=x.device).expand(key)
        x += 1
        y = self.drop(self.norm(self.conv(x)))
        return {"grid": y * self.grids[key], "plain": y}


def differences(model: Model, inputs: list[Tensor]) -> list[float]:
    assert model.reference
    arrays = [x.numpy() for x in inputs]
    kept = [x.copy() for x in arrays]
    wanted = model.reference.run(arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
    found = model(*[x.clone() for x in inputs])
    return [relative_difference(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]


def test_eager_pytorch_is_the_reference_of_a_module() -> None:
    torch.manual_seed(0)
    module = Remembers().train()
    inputs = draw((1, 3, 6, 6))
    for model in (from_module(module, *inputs), from_own_module(module, inputs, name="own")):
        assert model.reference
        assert model.reference.name == "eager PyTorch"
        assert max(differences(model, inputs)) <= 1e-6


def test_a_module_shares_its_tensors_with_its_reference() -> None:
    inputs = draw((1, 3, 6, 6))
    model = from_own_module(Remembers(), inputs, name="own")
    with torch.no_grad():
        model.module.get_parameter("conv.weight").zero_()
    assert max(differences(model, inputs)) == 0


def test_reference_finds_what_was_loaded_wrong() -> None:
    inputs = draw((1, 3, 6, 6))
    model = from_module(Remembers(), *inputs)
    norm = next(node for node in model.module.graph.nodes if "batch_norm" in node.name)
    norm.args = (*norm.args[:-2], 0.5, norm.args[-1])
    model.module.recompile()
    assert max(differences(model, inputs)) > 1e-2


def test_the_exported_program_is_the_reference_of_its_file(tmp_path: Path) -> None:
    inputs = draw((1, 3, 6, 6))
    module = nn.Sequential(nn.InstanceNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout()).eval()
    torch.export.save(torch.export.export(module, tuple(inputs)), tmp_path / "net.pt2")
    model = load(str(tmp_path / "net.pt2"))
    assert model.reference
    assert model.reference.name == "the exported program"
    assert max(differences(model, inputs)) <= 1e-6
    found = model.reference.run([x.numpy() for x in inputs])
    assert np.allclose(found[0], module(*inputs).detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [True, False])
def test_a_copy_has_no_reference(share: bool) -> None:
    model = from_module(nn.ReLU(), *draw((2, 3)))
    assert model.copy(share_tensors=share).reference is None
    assert model.reference is not None

"""Models that switch gradients or autocast within forward: their regions become a part of the graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from traced import draw, op_names, traced

from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module


class Frozen(nn.Module):
    """A backbone that is run without gradients, with a disabled autocast inside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hidden = self.first(x).relu()
            with torch.autocast("cpu", enabled=False):
                scaled = self.second(hidden) * hidden.sum()
                low, high = scaled.chunk(2, dim=-1)
            low = low - high
        return low + 1, high


class Autocast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x


class Written(nn.Module):
    """Writes into a tensor of the surroundings from within a region."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        with torch.no_grad():
            y[:, 1:3] += 1
        return y.exp()


class Choice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", [Frozen(), Written()], ids=lambda module: type(module).__name__)
def test_regions_compute_what_they_did(module: nn.Module) -> None:
    traced(module, *draw((2, 6)), bound=0)


def test_layers_within_a_region_keep_their_weights_and_names() -> None:
    model = traced(Frozen(), *draw((2, 6)))
    assert op_names(model).count("linear") == 2
    assert dict(model.module.named_parameters()).keys() == dict(Frozen().named_parameters()).keys()


def test_autocast_to_fewer_bits_is_refused_with_its_line() -> None:
    with pytest.raises(CompileError, match="in bfloat16, under") as refused:
        from_module(Autocast(), *draw((3, 3)))
    assert "test_torch_importer_regions.py" in str(refused.value.where)


def test_branches_on_values_are_refused() -> None:
    with pytest.raises(CompileError):
        from_module(Choice(), *draw((3, 3)))

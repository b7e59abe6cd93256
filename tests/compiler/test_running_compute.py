"""Fake quantisation as passes compute it gives the numbers of PyTorch's operators."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.running.compute import round_per_channel, round_per_tensor
from lvc.compiler.running.run import Run

BOUNDS = st.sampled_from([(0, 255), (-128, 127), (-127, 127), (-7, 7), (0, 3)])
SCALES = st.floats(2.0**-100, 1e4, width=32)


def values(scale: float, seed: int) -> torch.Tensor:
    """Values around a grid, points in the middle of two steps among them, and some far beyond."""
    near = torch.randn(400, generator=torch.Generator().manual_seed(seed)) * scale * 100
    middles = (torch.arange(-300, 300) + 0.5) * torch.tensor(scale)
    return torch.cat([near, middles, torch.tensor([0.0, -0.0, 1e6, -1e6]) * scale])


@given(SCALES, BOUNDS, st.floats(0, 1), st.integers(0, 99))
def test_of_a_tensor(scale: float, bounds: tuple[int, int], share: float, seed: int) -> None:
    x, zero = values(scale, seed), round(bounds[0] + share * (bounds[1] - bounds[0]))
    assert torch.equal(
        round_per_tensor(x, scale, zero, *bounds), torch.fake_quantize_per_tensor_affine(x, scale, zero, *bounds)
    )


@given(SCALES, BOUNDS, st.integers(0, 2), st.integers(0, 99))
def test_of_channels(scale: float, bounds: tuple[int, int], axis: int, seed: int) -> None:
    x = values(scale, seed)[:1000].reshape(10, 10, 10)
    generator = torch.Generator().manual_seed(seed)
    scales = scale * (torch.rand(10, generator=generator) + 0.1)
    zeros = torch.randint(bounds[0], bounds[1] + 1, (10,), generator=generator, dtype=torch.int32)
    wanted = torch.fake_quantize_per_channel_affine(x, scales, zeros, axis, *bounds)
    assert torch.equal(round_per_channel(x, scales, zeros, axis, *bounds), wanted)


@pytest.mark.parametrize("grid", ["0.1, 3, 0, 255", "0.25, 0, -7, 7"])
def test_a_model_gives_the_same_numbers(grid: str) -> None:
    model = parse_model(f"""
        model network(x: f32[1,40])
          @w : f32[30,40]
          %q = fake_quantize_per_tensor_affine(%x, {grid})
          %y = linear(%q, @w)
          return out=%y
    """)
    x = torch.randn(1, 40)
    with torch.no_grad():
        assert torch.equal(Run(model, frozen=True)(x)[0], model.module(x)[0])

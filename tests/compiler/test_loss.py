"""What one output lost against another: decibels, first choices, places without information."""

from __future__ import annotations

import math

import pytest
import torch

from lvc.compiler.measure.comparison.loss import compare

LOW = -math.inf


def test_decibels_and_first_choices() -> None:
    wanted, found = torch.tensor([[3.0, 4.0], [4.0, 3.0]]), torch.tensor([[3.0, 4.0], [4.0, 4.5]])
    loss = compare("scores", [wanted], [found])
    assert loss.sqnr == pytest.approx(10 * math.log10(50 / 2.25))
    assert loss.agreement == 0.5


def test_integers_are_choices() -> None:
    wanted = torch.arange(8).reshape(1, 2, 2, 2) % 3
    found = wanted.clone()
    found[0, 0, 0, 0] += 1
    assert compare("map", [wanted], [found]).agreement == 1 - 1 / 8


def test_what_is_not_finite_in_both_is_no_loss() -> None:
    wanted = torch.tensor([[1.0, LOW, 2.0, math.nan], [3.0, LOW, 4.0, math.nan]]).reshape(2, 1, 2, 2)
    assert compare("masked", [wanted], [wanted.clone()]).sqnr == math.inf
    near = compare("masked", [wanted], [wanted + 0.1])
    assert near.sqnr == pytest.approx(10 * math.log10(30 / 0.04), abs=1e-3)
    assert not near.has_collapsed


@pytest.mark.parametrize("bad", [math.nan, math.inf, LOW])
def test_what_is_not_finite_in_one_is_lost(bad: float) -> None:
    wanted = torch.arange(8.0).reshape(2, 1, 2, 2)
    found = wanted.clone()
    found[0, 0, 0, 0] = bad
    assert compare("broken", [wanted], [found]).sqnr == LOW
    assert compare("broken", [wanted], [found]).has_collapsed


def detections(images: int = 8) -> torch.Tensor:
    """``[N,anchors,5]``: boxes of anchors, far larger than what differs between images, and a score of few objects."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.arange(60.0).reshape(1, 60, 1).expand(images, 60, 4) + 0.5 * torch.randn(
        images, 60, 4, generator=generator
    )
    scores = (torch.rand(images, 60, 1, generator=generator) > 0.95).float()
    return torch.cat([boxes, scores], 2)


def test_what_is_the_same_in_all_images_is_no_information() -> None:
    """Decibels are high, and every anchor and column varies a lot within an image; between images nothing is left."""
    wanted = detections()
    loss = compare("boxes", [wanted], [wanted.mean(0).expand_as(wanted)])
    assert loss.sqnr > 30
    assert loss.has_collapsed
    few = detections(4)
    assert not compare("boxes", [few], [few.mean(0).expand_as(few)]).has_collapsed
    half = compare("boxes", [wanted], [wanted.lerp(wanted.mean(0).expand_as(wanted), 0.6)])
    assert half.is_damaged
    well = compare("boxes", [wanted], [wanted.lerp(wanted.mean(0).expand_as(wanted), 0.1)])
    assert not well.has_collapsed
    assert not well.is_damaged


def test_a_large_error_in_few_places_is_damage_as_well() -> None:
    """Three quarters of the places are right, so most of them are not lost, but what is there is a third off."""
    wanted = torch.randn(8, 4, 16, generator=torch.Generator().manual_seed(0))
    wanted[:, 0] *= 10
    found = wanted.clone()
    found[:, 0] *= 0.66
    loss = compare("maps", [wanted], [found])
    assert 9 < loss.sqnr < 10
    assert loss.damaged < 0.5
    assert loss.is_damaged
    found[:, 0] = wanted[:, 0] * 0.75
    assert not compare("maps", [wanted], [found]).is_damaged

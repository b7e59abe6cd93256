"""What one output lost against another: decibels, first choices, places without information."""

from __future__ import annotations

import math

import pytest
import torch

from lvc.compiler.comparison.loss import compare

LOW = -math.inf


def test_decibels_and_first_choices() -> None:
    wanted, found = torch.tensor([[3.0, 4.0], [4.0, 3.0]]), torch.tensor([[3.0, 4.0], [4.0, 4.5]])
    loss = compare("scores", [wanted], [found])
    assert loss.sqnr == pytest.approx(10 * math.log10(50 / 2.25))
    assert loss.agreement == 0.5


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

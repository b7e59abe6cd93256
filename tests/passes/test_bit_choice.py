"""The path of choices against all choices there are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lvc.passes.quantisation.bit_choice import Choice, filled, path
from lvc.passes.quantisation.divergence import changed_choices, divergence

LAYERS = {
    "a": [Choice(32, 400, 0.0), Choice(8, 100, 1.0), Choice(4, 50, 4.0)],
    "b": [Choice(32, 800, 0.0), Choice(8, 200, 0.5), Choice(4, 100, 9.0)],
    "c": [Choice(32, 40, 0.0), Choice(8, 10, 3.0), Choice(4, 5, 3.0)],
}


def best(most: int) -> float:
    every = itertools.product(*LAYERS.values())
    return min(sum(c.cost for c in one) for one in every if sum(c.bytes for c in one) <= most)


def test_the_path_leads_from_float_to_the_fewest_bits() -> None:
    points = path(LAYERS)
    assert set(points[0].bits.values()) == {32}
    assert set(points[-1].bits.values()) == {4}
    assert all(a.bytes > b.bytes and a.cost <= b.cost for a, b in itertools.pairwise(points))


def test_every_point_is_the_best_of_its_size() -> None:
    for point in path(LAYERS):
        assert point.cost == best(point.bytes)


@pytest.mark.parametrize("most", [155, 200, 260, 345, 500, 700, 1000, 1240])
def test_room_is_used(most: int) -> None:
    first = next(point for point in path(LAYERS) if point.bytes <= most)
    found = filled(LAYERS, first, most)
    assert found.bytes <= most
    assert best(most) <= found.cost <= first.cost


def test_a_choice_that_costs_more_and_saves_nothing_is_left_out() -> None:
    points = path({"a": [Choice(32, 100, 0.0), Choice(8, 50, 5.0), Choice(4, 25, 2.0)]})
    assert [point.bits["a"] for point in points] == [32, 4]


def test_relative_entropy_by_hand() -> None:
    wanted, found = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert divergence([wanted], [found]) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    shares = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
    assert divergence(shares[:1], shares[1:]) == pytest.approx(divergence([wanted], [found]))
    assert divergence([torch.ones(2, 1, 3)], [torch.full((2, 1, 3), 1.5)]) == pytest.approx(0.25)


def test_changed_choices() -> None:
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    found = torch.tensor([[1.0, 2.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    assert changed_choices([wanted], [found]) == 0.25

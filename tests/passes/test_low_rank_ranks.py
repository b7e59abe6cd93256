"""How ranks are chosen: by energy, by what is above the noise, by what they may cost, and by one search over layers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.passes.low_rank.factorisation import METHODS, Parts
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.options import Option, ranks_above_noise
from lvc.passes.low_rank.ranks import above_noise, at_most, by_energy
from lvc.passes.low_rank.search import choose, useful
from lvc.passes.low_rank.statistics import Statistics

FEW = settings(max_examples=60, derandomize=True, deadline=None)


def test_energy() -> None:
    spectrum = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert by_energy([spectrum], 0.4) == (1,)
    assert by_energy([spectrum], 0.41) == (2,)
    assert by_energy([spectrum, spectrum.flip(0)], 0.9) == (3, 4)


@pytest.mark.parametrize(("rank", "noise"), [(0, 1.0), (5, 0.1), (5, 1.0), (20, 0.5)])
def test_rank_above_noise(rank: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(rank)
    left, right = (torch.randn(size, generator=generator) for size in ((120, rank), (rank, 400)))
    matrix = left @ right + noise * torch.randn(120, 400, generator=generator)
    assert above_noise(torch.linalg.svdvals(matrix), 120, 400) == rank
    assert above_noise(torch.linalg.svdvals(matrix.T), 400, 120) == rank


def test_nothing_is_above_noise_in_zeros() -> None:
    assert above_noise(torch.zeros(4), 4, 9) == 0


WEIGHTS = {
    "channel-svd": ("or,rihw->oihw", (8, 3), (3, 64, 3, 3)),
    "spatial-svd": ("rih,orw->oihw", (3, 64, 3), (8, 3, 3)),
    "tucker2": ("os,sihw->oihw", (8, 3), (3, 64, 3, 3)),
    "depthwise-separable": ("oir,irhw->oihw", (8, 64, 3), (64, 3, 3, 3)),
}


@pytest.mark.parametrize(("name", "noise"), [(name, noise) for name in WEIGHTS for noise in (0.1, 1e3)])
def test_ranks_above_noise_know_the_matrix(name: str, noise: float) -> None:
    """What is drowned in noise has the least rank, what is not its own."""
    generator = torch.Generator().manual_seed(0)
    formula, *shapes = WEIGHTS[name]
    weight = torch.einsum(formula, *(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))
    weight += noise * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    parts = Parts.of(METHODS.parse(name), Kernel(weight), Statistics())
    ranks = ranks_above_noise(parts)
    assert ranks[-1] == 3 if noise < 1 else max(ranks) == 1


def test_the_ranks_of_least_loss_for_a_cost() -> None:
    spectra = [torch.tensor([8.0, 1.0, 1.0]), torch.tensor([5.0, 5.0, 5.0])]

    def cost(ranks: tuple[int, ...]) -> float:
        return ranks[0] + ranks[1]

    assert at_most((3, 3), cost, 4, spectra) == (1, 3)
    assert at_most((3, 3), cost, 1, spectra) is None
    assert at_most((10,), lambda ranks: ranks[0], 9, [], multiple=4) == (8,)
    assert at_most((10,), lambda ranks: ranks[0], 10, [], multiple=4) == (10,)
    assert at_most((10,), lambda ranks: ranks[0], 3, [], multiple=4) is None


def option(cost: float, error: float) -> Option:
    return Option("svd", (1,), (), cost, error, error)


POINTS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 100)), max_size=4)


def test_only_what_a_price_can_buy() -> None:
    found = [option(8, 1), option(6, 5), option(4, 4), option(2, 20), option(11, 0)]
    assert [(one.cost, one.error) for one in useful(found, 10)] == [(8, 1), (4, 4), (2, 20)]


@FEW
@given(st.lists(POINTS, min_size=1, max_size=4), st.floats(0.2, 1))
def test_the_search_keeps_to_the_budget_and_is_near_the_best(points: list[list[tuple[int, int]]], share: float) -> None:
    options = {layer: [option(*point) for point in found if point[0] < 30] for layer, found in enumerate(points)}
    today = dict.fromkeys(options, 30.0)
    allowed = share * sum(today.values())
    chosen = choose(options, today, allowed)
    every = [[(30.0, 0.0), *((one.cost, one.error) for one in found)] for found in options.values()]
    fitting = [
        sum(e for _, e in picked) for picked in itertools.product(*every) if sum(c for c, _ in picked) <= allowed
    ]
    cost = sum(chosen[layer].cost if layer in chosen else 30.0 for layer in options)
    if not fitting:
        assert all(chosen[layer].cost == min(one.cost for one in found) for layer, found in options.items() if found)
        return
    assert cost <= allowed
    worst_step = max((e for found in every for _, e in found), default=0.0)
    assert sum(one.error for one in chosen.values()) <= min(fitting) + worst_step

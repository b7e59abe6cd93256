"""One language and one search for all budgets: what is given back, how latency is reached, what errors promise."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Race, Workspace
from lvc.passes.budget.language import SHARES, BudgetedPass
from lvc.passes.budget.latency import until_fast
from lvc.passes.budget.search import Ladder, descend, lower_hull


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return from_module(network.eval(), torch.zeros(1, 3, 6, 6))


def test_what_the_last_step_saves_too_much_goes_back_to_the_dearest() -> None:
    """Of a stream each step saves 40, of two layers beside it 3 each at rising prices."""
    saves = {"stream": 40, "cheap": 3, "dear": 3}
    ladders = {
        "stream": Ladder.of_prices([5.0, 9.0]),
        "cheap": Ladder.of_prices([0.5, 1.0, 1.5]),
        "dear": Ladder.of_prices([2.0, 3.0, 6.0]),
    }

    def measure(levels: Mapping[str, int]) -> float:
        return 100 - sum(saves[name] * level for name, level in levels.items())

    assert descend(ladders, measure, 54) == {"stream": 1, "cheap": 2}
    assert descend(ladders, measure, 100) == {}
    assert descend(ladders, measure, 0) == {"stream": 2, "cheap": 3, "dear": 3}


def test_levels_between_the_stops_are_given_back_to() -> None:
    """A price buys the last level alone; the one before it is enough."""
    points = [(10.0, 4.0), (20.0, 5.0)]
    ladder = Ladder.of_points(points)
    assert lower_hull(points) == [1]
    assert list(ladder.stops) == [(0.25, 2)]
    assert descend({"layer": ladder}, lambda levels: 30 - 10 * levels.get("layer", 0), 20) == {"layer": 1}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_latency_is_aimed_at_a_little_below_the_budget(share: float) -> None:
    asked: list[float] = []

    def ask(cost: float) -> float:
        asked.append(cost)
        return cost

    found = until_fast(share, ask, lambda cost: cost, lambda cost: Race(1, 1, 0.2 + 0.8 * cost), 0.05)
    assert 0.96 * share <= found.race.share <= share
    assert len(asked) <= 4


def test_of_coarse_choices_the_nearest_is_taken() -> None:
    """There are three choices, of 0.3, 0.51 and 1."""

    def ask(cost: float) -> float:
        return max([one for one in (0.3, 0.51, 1.0) if one <= cost], default=0.3)

    for share, wanted in [(0.5, 0.51), (0.45, 0.3), (0.1, 0.3)]:
        found = until_fast(share, ask, lambda cost: cost, lambda cost: Race(1, 1, cost), 0.3)
        assert found.choice == wanted, share


BUDGETED = [name for name in catalogue.PASSES.names() if issubclass(catalogue.PASSES.get(name), BudgetedPass)]


def shrink(name: str, options: str, model: Model, used: Workspace | None = None) -> Model:
    return Pipeline.parse(f"{name}{{{options}}}").run(model, used or normal(model))[0]


@pytest.mark.parametrize("kind", sorted(SHARES.keys() - {"latency"}))
@pytest.mark.parametrize("name", BUDGETED)
def test_the_least_that_an_error_tells_can_be_asked_for(name: str, kind: str, model: Model) -> None:
    with pytest.raises(UsageError, match=rf"the budget {kind}=0\.001 cannot be reached") as caught:
        shrink(name, f"{kind}=0.001", model)
    (least,) = re.findall(r"at least (0\.\d+) of today's", caught.value.what)
    made = shrink(name, f"{kind}={least}", model)
    counted = {"macs": "macs", "params": "parameters", "bytes": "weight_bytes"}[kind]
    assert _total(made, counted) <= float(least) * _total(model, counted)


def _total(model: Model, counted: str) -> int:
    from lvc.compiler.measure.inspection import layers
    from lvc.compiler.measure.layers import totals

    found: int = getattr(totals(layers(model)), counted)
    return found


@pytest.mark.parametrize("name", BUDGETED)
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("", "was not told how small the model shall become"),
        ("macs=0.5 params=0.5", "macs and params are both given"),
        ("bytes=0", "bytes must be between 0 and 1, not 0"),
        ("params=1", "params must be between 0 and 1, not 1"),
        ("macs=nan", "macs must be between 0 and 1, not nan"),
        ("macs=0.5 images=0", "images must be at least 1, not 0"),
        ("macs=0.5 data=photos", "no data set named 'photos'"),
        ("latency=0.5", "there is no target to measure latency on"),
    ],
)
def test_misuse(name: str, options: str, what: str, model: Model) -> None:
    with pytest.raises(UsageError) as caught:
        shrink(name, options, model)
    assert what in caught.value.what


def test_factors_are_not_computed_for_a_budget_out_of_reach(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvc.passes.factor_low_rank.Parts.of", None)
    with pytest.raises(UsageError, match="cannot be reached"):
        shrink("factor-low-rank", "macs=0.05", model)

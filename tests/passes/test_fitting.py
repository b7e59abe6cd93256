"""Fits of layers to rows: sums from several batches equal sums over all, and a mean far from zero drowns nothing."""

from __future__ import annotations

import math
import weakref

import pytest
import torch

from lvc.compiler.errors import CompileError
from lvc.passes.fitting.batch_norm import statistics
from lvc.passes.fitting.moments import Gathering, Moments, solve
from lvc.passes.fitting.ridge import inverse, leading_solutions, ridge_solution


def rows(count: int = 200, *, far: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``f32[count,6]`` about ``far``, and outputs that are an affine function of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator) + far
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    return x, x @ weight.T + bias


def gather(x: torch.Tensor, y: torch.Tensor) -> Moments:
    sums = Moments.empty(x.shape[1], y.shape[1])
    for part, wanted in zip(x.split(50), y.split(50), strict=True):
        sums.add(part, wanted)
    return sums


@pytest.mark.parametrize("far", [0.0, 1e3])
def test_an_affine_function_is_found(far: float) -> None:
    x, y = rows(far=far)
    weight, bias = solve(gather(x, y), torch.zeros(3, 6))
    found = x.double() @ weight.T + bias
    assert float((found - y).square().mean()) < 1e-5 * float(y.var(0).mean())


def test_means_far_from_zero_leave_the_covariance_exact() -> None:
    x, y = rows(far=1e4)
    covariance = gather(x, y).centred()[0]
    wanted = torch.cov(x.double().T, correction=0)
    torch.testing.assert_close(covariance, wanted, rtol=1e-4, atol=1e-4)


def test_halves_add_up_to_the_whole() -> None:
    x, y = rows(far=7.0)
    halves, whole = gather(x[:90], y[:90]) + gather(x[90:], y[90:]), gather(x, y)
    for ours, theirs in zip(halves.centred(), whole.centred(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(halves.mean_x, whole.mean_x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((whole + Moments.empty(6, 3)).mean_y, whole.mean_y)


def test_rows_that_come_one_by_one_are_the_same_sums() -> None:
    x, y = rows(far=3.0)
    few = Gathering(6, 3)
    for place in range(len(x) - 1):
        few.add(x[place : place + 1], y[place : place + 1])
    found, wanted = few.moments(), gather(x[:-1], y[:-1])
    assert found.count == wanted.count == len(x) - 1
    for ours, theirs in zip(found.centred(), wanted.centred(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    few.add(x[-1:], y[-1:])
    assert few.moments().count == len(x)


def test_the_error_of_a_fit_is_that_over_its_rows() -> None:
    x, y = rows(far=3.0)
    sums = gather(x, y)
    fits = [(torch.zeros(3, 6).double(), y.double().mean(0)), solve(sums, torch.zeros(3, 6))]
    told = [sums.error(weight, bias) for weight, bias in fits]
    true = [float((x.double() @ weight.T + bias - y).square().sum()) for weight, bias in fits]
    assert told == pytest.approx(true, rel=1e-4, abs=1e-2)
    part = sums.of_outputs(slice(1, 2))
    assert part.error(fits[0][0][1:2], fits[0][1][1:2]) == pytest.approx(float((y - y.mean(0))[:, 1].square().sum()))
    power = float(y.double().square().sum())
    assert sums.decibels(*fits[0]) == pytest.approx(10 * math.log10(power / true[0]), abs=1e-3)


def test_one_factorisation_gives_the_solution_for_every_count() -> None:
    x, y = rows()
    xx, xy = gather(x, y).centred()
    start = torch.randn(3, 6, dtype=torch.float64)
    for count, found in zip([6, 4, 1], leading_solutions(xx, xy, start, [6, 4, 1]), strict=True):
        ridge = 1e-3 * float(xx.diagonal().mean())
        regular = xx[:count, :count] + ridge * torch.eye(count)
        wanted = torch.linalg.solve(regular, xy[:count] + ridge * start.T[:count]).T
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(inverse(xx) @ (xx + ridge * torch.eye(6)), torch.eye(6, dtype=torch.float64))


def test_inputs_that_never_vary_leave_the_weights_as_they_are() -> None:
    start = torch.randn(3, 6, dtype=torch.float64)
    found = ridge_solution(torch.zeros(6, 6).double(), torch.zeros(6, 3).double(), start)
    torch.testing.assert_close(found, start)


def test_rounding_that_spoils_a_covariance_raises_the_ridge() -> None:
    spoilt = torch.tensor([[1.0, 1.002], [1.002, 1.0]], dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(spoilt)[0]) < -1e-3, "no ridge of a thousandth mends it"
    torch.testing.assert_close(
        inverse(spoilt), torch.linalg.inv(spoilt + 1e-2 * torch.eye(2, dtype=torch.float64)), rtol=1e-9, atol=1e-9
    )


def test_what_is_not_finite_is_said() -> None:
    with pytest.raises(CompileError, match="has no covariance"):
        ridge_solution(torch.full((2, 2), torch.nan).double(), torch.zeros(2, 1).double(), torch.zeros(1, 2))


def test_statistics_hold_one_value_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(torch.randn(6, 2, 3, 5, 4, generator=torch.Generator().manual_seed(0)) + 100)
    widened: list[weakref.ref[torch.Tensor]] = []
    most = 0
    flatten = torch.Tensor.flatten

    def counted(value: torch.Tensor, *dims: int) -> torch.Tensor:
        nonlocal most
        found = flatten(value, *dims)
        widened.append(weakref.ref(found))
        most = max(most, sum(known() is not None for known in widened))
        return found

    monkeypatch.setattr(torch.Tensor, "flatten", counted)
    mean, variance = statistics(values)
    monkeypatch.undo()
    together = torch.cat(values).double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(mean, together.mean(1))
    torch.testing.assert_close(variance, together.var(1))
    assert most <= 2

"""Quantisation parameters and the ranges that estimators choose: by hand, and for any range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvc.compiler.measure.comparison.loss import compare
from lvc.passes.quantisation.histogram import BINS, Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import RANGE_ESTIMATORS
from lvc.passes.quantisation.weight_parameters import weight_parameters

KINDS = st.builds(
    QuantisationScheme,
    bits=st.integers(2, 8),
    axis=st.none(),
    symmetric=st.booleans(),
    scale=st.sampled_from(["linear", "power-of-two"]),
    stored=st.booleans(),
)
ENDS = st.floats(-1e4, 1e4, width=32)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


@pytest.mark.parametrize(
    ("scheme", "ends", "scale", "zero", "bounds"),
    [
        (QuantisationScheme(), (-1.0, 1.55), 0.01, 100, (0, 255)),
        (QuantisationScheme(bits=4), (0.0, 3.0), 0.2, 0, (0, 15)),
        (QuantisationScheme(bits=4, stored=True), (-0.8, 0.7), 0.1, 0, (-8, 7)),
        (QuantisationScheme(symmetric=True), (-1.27, 0.5), 0.01, 0, (-127, 127)),
        (QuantisationScheme(symmetric=True), (0.5, 2.55), 0.01, 0, (0, 255)),
        (QuantisationScheme(symmetric=True, stored=True), (0.5, 1.27), 0.01, 0, (-127, 127)),
        (QuantisationScheme(bits=2, symmetric=True, stored=True), (-3.0, 2.0), 3.0, 0, (-1, 1)),
        (QuantisationScheme(scale="power-of-two"), (0.0, 255.0), 1.0, 0, (0, 255)),
        (QuantisationScheme(scale="power-of-two"), (0.0, 256.0), 2.0, 0, (0, 255)),
        (QuantisationScheme(), (0.0, 0.0), 1.0, 0, (0, 255)),
    ],
)
def test_parameters_by_hand(
    scheme: QuantisationScheme, ends: tuple[float, float], scale: float, zero: int, bounds: tuple[int, int]
) -> None:
    parameters = scheme.parameters(*map(scalar, ends))
    assert float(parameters.scale) == pytest.approx(scale)
    assert (int(parameters.zero), parameters.low, parameters.high) == (zero, *bounds)


@given(KINDS, ENDS, ENDS)
def test_any_range_gets_parameters_that_hold_it_and_zero(
    scheme: QuantisationScheme, first: float, second: float
) -> None:
    low, high = min(first, second, 0.0), max(first, second, 0.0)
    parameters = scheme.parameters(scalar(low), scalar(high))
    values = torch.linspace(low, high, 50)
    rounded = parameters.round(values)
    step = float(parameters.scale)
    assert float((rounded - values).abs().max()) <= step * 0.5 + step * 0.51 * (not scheme.symmetric) + 1e-3 * step
    assert torch.allclose(parameters.round(rounded), rounded, rtol=1e-6, atol=1e-6 * step)
    assert float(parameters.round(scalar(0.0))) == 0.0
    if scheme.scale == "power-of-two":
        assert float(parameters.scale.log2()) == round(float(parameters.scale.log2()))


def test_each_channel_of_a_weight_has_its_own_scale() -> None:
    weight = torch.tensor([[1.0, -0.5], [0.01, 0.02], [0.0, 0.0]])
    parameters = weight_parameters(QuantisationScheme(axis=0, symmetric=True, stored=True), weight, least_error=False)
    torch.testing.assert_close(parameters.scale, torch.tensor([1 / 127, 0.02 / 127, 1.0]))
    assert parameters.zero.tolist() == [0, 0, 0]


def test_the_least_error_cuts_off_an_outlier() -> None:
    weight = torch.cat([torch.linspace(-0.1, 0.1, 5000), torch.tensor([1.0])])[None]
    scheme = QuantisationScheme(bits=4, axis=0, symmetric=True, stored=True)
    whole, best = (weight_parameters(scheme, weight, least_error=least) for least in (False, True))
    assert float(best.scale) < 0.7 * float(whole.scale)
    assert float((best.round(weight) - weight).square().sum()) < float((whole.round(weight) - weight).square().sum())


def test_a_histogram_grows_without_losing_counts() -> None:
    seen = Histogram()
    seen.add(torch.tensor([0.3, -0.2]))
    assert seen.reach == 0.5
    seen.add(torch.tensor([5.0, -7.9, 0.1]))
    assert (seen.reach, float(seen.counts.sum())) == (8.0, 5.0)
    assert (seen.low, seen.high) == (pytest.approx(-7.9), 5.0)
    values, counts = seen.points()
    assert counts.tolist() == [1.0] * 5
    torch.testing.assert_close(values.float(), torch.tensor([-7.9, -0.2, 0.1, 0.3, 5.0]), atol=16 / BINS, rtol=0)


def test_the_histogram_knows_the_error_of_quantisation() -> None:
    values = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    seen, scheme = Histogram(), QuantisationScheme(bits=5)
    seen.add(values)
    for low, high in [(-2.0, 2.0), (-4.0, 4.0), (-1.0, 3.0)]:
        true = (scheme.parameters(scalar(low), scalar(high)).round(values) - values).square().mean()
        found = seen.error(scheme, torch.tensor([low]), torch.tensor([high]))
        assert float(found) == pytest.approx(float(true), rel=0.02)


def observed(text: str, values: torch.Tensor, scheme: QuantisationScheme) -> tuple[float, float]:
    watch = RANGE_ESTIMATORS.parse(text).watch(scheme)
    for part in values.chunk(4):
        watch.see(part)
    return watch.range()


@pytest.mark.parametrize("text", ["percentile{p=99.9}", "mse", "histogram", "entropy"])
def test_one_outlier_does_not_coarsen_few_steps(text: str) -> None:
    values = torch.randn(40000, generator=torch.Generator().manual_seed(0))
    values[17] = 60.0
    low, high = observed(text, values, QuantisationScheme(bits=4))
    assert -5 < low < -1
    assert 1 < high < 20


def test_percentile() -> None:
    low, high = observed("percentile{p=90}", torch.linspace(0, 1, 10001), QuantisationScheme())
    assert (low, high) == (pytest.approx(0.1, abs=1e-3), pytest.approx(0.9, abs=1e-3))


@pytest.mark.parametrize("text", ["mse", "histogram"])
def test_least_error_is_no_more_than_that_of_all_values(text: str) -> None:
    values = torch.randn(20000, generator=torch.Generator().manual_seed(1)).relu()
    scheme = QuantisationScheme(bits=4)
    errors = [
        float((scheme.parameters(*map(scalar, ends)).round(values) - values).square().mean())
        for ends in (observed(text, values, scheme), (0.0, float(values.max())))
    ]
    assert errors[0] < 0.9 * errors[1]


def test_comparison_by_hand() -> None:
    wanted = [torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])]
    found = [torch.tensor([[3.0, 4.1]]), torch.tensor([[0.4, 0.5]])]
    error = compare("out", wanted, found)
    assert error.sqnr == pytest.approx(10 * torch.log10(torch.tensor(26 / (0.01 + 0.36 + 0.25))).item(), rel=1e-4)
    assert error.agreement == 0.5
    assert not error.has_collapsed


def test_a_constant_output_has_collapsed() -> None:
    wanted = list(torch.randn(10, 1, 5, generator=torch.Generator().manual_seed(0)))
    assert compare("out", wanted, [torch.zeros(1, 5)] * 10).has_collapsed


@pytest.mark.parametrize(("decibels", "is_damaged"), [(5.0, True), (7.0, False)])
def test_an_output_is_damaged_when_most_of_its_places_keep_less_than_a_bit(decibels: float, is_damaged: bool) -> None:
    """As when a detector's large boxes leave by one tensor with its scores, and the boxes are well."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(50, 1, 4, 100, generator=generator)
    wanted[:, :, 0] *= 10
    noise = torch.randn(wanted.shape, generator=generator) * 10 ** (-decibels / 20)
    noise[:, :, 0] = 0
    error = compare("out", list(wanted), list(wanted + noise))
    assert (error.is_damaged, error.has_collapsed) == (is_damaged, False)
    assert error.sqnr > decibels

"""Quantisation parameters for stored tensors, whose values are known."""

from __future__ import annotations

import dataclasses

import torch

from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters, QuantisationScheme

_SHARES = torch.linspace(1.0, 0.3, 57, dtype=torch.float64)
_BLOCK = 1 << 16  # values that stay in a cache
_HOPELESS = 4.0


def weight_parameters(scheme: QuantisationScheme, values: torch.Tensor, *, least_error: bool) -> QuantisationParameters:
    """Return those for a stored tensor from its least to its greatest value, of each channel if ``scheme`` says so.

    With ``least_error``, of the ranges that are narrower by one factor at both ends the one with the smallest squared
    error, for each channel.
    """
    rows = _rows(scheme, values)
    low, high = rows.amin(1), rows.amax(1)
    share = _best_shares(scheme, rows, low, high) if least_error else torch.ones_like(low)
    return _of_ranges(scheme, low * share, high * share)


def learnable_parameters(scheme: QuantisationScheme, values: torch.Tensor) -> QuantisationParameters:
    """Return those from which scales are learned: with Q positive integers ``scale = 2 mean|w| / sqrt(Q)``, or, where
    weights are not symmetric, those for the range of three standard deviations about the mean.

    Source: Esser et al. 2020, "Learned step size quantization", section 2.1; Bhalgat et al. 2020, "LSQ+", section 3.2.
    """
    rows = _rows(scheme, values)
    if scheme.symmetric:
        most = 2 * rows.abs().mean(1) * scheme.bounds(True)[1] ** 0.5
        return _of_ranges(scheme, -most, most)
    mean, deviation = rows.mean(1), rows.std(1, correction=0)
    return _of_ranges(scheme, mean - 3 * deviation, mean + 3 * deviation)


def _rows(scheme: QuantisationScheme, values: torch.Tensor) -> torch.Tensor:
    """Values in rows that have a scale each."""
    return (
        values.detach().movedim(scheme.axis, 0).flatten(1)
        if scheme.axis is not None
        else values.detach().reshape(1, -1)
    )


def _of_ranges(scheme: QuantisationScheme, low: torch.Tensor, high: torch.Tensor) -> QuantisationParameters:
    ends = (low, high)
    return scheme.parameters(*ends) if scheme.axis is not None else scheme.parameters(*(end[0] for end in ends))


def _best_shares(scheme: QuantisationScheme, rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Try the shares from the widest range on, until all rows have left the best of theirs far behind."""
    by_row = dataclasses.replace(scheme, axis=0)
    least = torch.full_like(low, torch.inf)
    best = torch.ones_like(low)
    for share in _SHARES.tolist():
        error = _errors(by_row.parameters(low * share, high * share), rows)
        best[error < least] = share
        least = torch.minimum(error, least)
        if bool((error > _HOPELESS * least).all()):
            break
    return best


def _errors(parameters: QuantisationParameters, rows: torch.Tensor) -> torch.Tensor:
    """Return the squared error of each row, quantised."""
    scale, zero = parameters.scale[:, None], parameters.zero[:, None].float()
    count = max(1, _BLOCK // rows.shape[1])
    errors = []
    for at in range(0, len(rows), count):
        here = slice(at, at + count)
        places = (
            rows[here]
            .div(scale[here])
            .add_(zero[here])
            .round_()
            .clamp_(parameters.low, parameters.high)
            .sub_(zero[here])
        )
        errors.append(places.mul_(scale[here]).sub_(rows[here]).square_().sum(1))
    return torch.cat(errors)

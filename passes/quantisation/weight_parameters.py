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
    rows = (
        values.detach().movedim(scheme.axis, 0).flatten(1)
        if scheme.axis is not None
        else values.detach().reshape(1, -1)
    )
    low, high = rows.amin(1), rows.amax(1)
    share = _best_shares(scheme, rows, low, high) if least_error else torch.ones_like(low)
    ends = (low * share, high * share)
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

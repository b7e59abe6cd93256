"""Grids for stored tensors, whose values are known."""

from __future__ import annotations

import dataclasses

import torch

from lvc.passes.quantisation.grids import Grid, GridKind

_SHARES = torch.linspace(1.0, 0.3, 57, dtype=torch.float64)


def stored_grid(kind: GridKind, values: torch.Tensor, *, least_error: bool) -> Grid:
    """Return the grid for a stored tensor from its least to its greatest value, of each channel if ``kind`` says so.

    With ``least_error``, of the ranges that are narrower by one factor at both ends the one with the smallest squared
    error, for each channel.
    """
    rows = values.detach().movedim(kind.axis, 0).flatten(1) if kind.axis is not None else values.detach().reshape(1, -1)
    low, high = rows.amin(1), rows.amax(1)
    share = _best_shares(kind, rows, low, high) if least_error else torch.ones_like(low)
    ends = (low * share, high * share)
    return kind.grid(*ends) if kind.axis is not None else kind.grid(*(end[0] for end in ends))


def _best_shares(kind: GridKind, rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    by_row = dataclasses.replace(kind, axis=0)
    errors = torch.stack(
        [(by_row.grid(low * s, high * s).round(rows) - rows).double().square().sum(1) for s in _SHARES]
    )
    return _SHARES[errors.argmin(0)].to(low.dtype)

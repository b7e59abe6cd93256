"""Entropy of numbers that were put into bins."""

from __future__ import annotations

import torch


def entropy(rows: torch.Tensor, bins: int, span: tuple[float, float] | None = None) -> torch.Tensor:
    """Return the entropy of each row of ``f64[n, m]`` in nats, ``f64[n]``: ``-sum p ln p`` over bins of equal width.

    The bins reach from a row's least to its largest value, or over ``span`` if it is given.
    """
    low, high = (rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)) if span is None else span
    width = torch.as_tensor(high - low, dtype=torch.float64).clamp(min=1e-300)
    places = ((rows - low) / width * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(len(rows), bins, dtype=torch.float64)
    counts.scatter_add_(1, places, torch.ones_like(places, dtype=torch.float64))
    shares = counts / rows.shape[1]
    found: torch.Tensor = -torch.special.xlogy(shares, shares).sum(1)
    return found

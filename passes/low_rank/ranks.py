"""How large ranks shall be: by the energy that they keep, by what is above the noise, or by what they may cost.

Spectra are squared singular values, largest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from lvc.passes.low_rank.factorisation import Ranks

_STEPS = 200


def by_energy(spectra: Sequence[torch.Tensor], share: float) -> Ranks:
    """The least ranks that keep a share of the energy of each spectrum."""
    return tuple(_count(values, share * float(values.sum())) for values in spectra)


def _count(values: torch.Tensor, wanted: float) -> int:
    kept = values.cumsum(0)
    return min(len(values), 1 + int((kept < wanted * (1 - 1e-12)).sum()))


def above_noise(singular: torch.Tensor, rows: int, columns: int) -> int:
    """The rank of a matrix ``rows x columns`` seen through noise, of which nothing is known, by its singular values.

    Source: Nakajima et al., "Global analytic solution of fully-observed variational Bayesian matrix factorization",
    2013, theorems 2 and 3: a component counts if the Bayesian estimate of it is not zero, the variance of the noise
    being that of least free energy.
    """
    short, long = sorted((rows, columns))
    values = singular.double().square()[:short] / long
    alpha = short / long
    tau = 2.5129 * math.sqrt(alpha)
    threshold = (1 + tau) * (1 + alpha / tau)

    def free_energy(variance: float) -> float:
        scaled = (values / variance).clamp(min=1e-30)
        kept, lost = scaled[scaled > threshold], scaled[scaled <= threshold]
        middle = kept - (1 + alpha)
        estimate = 0.5 * (middle + (middle.square() - 4 * alpha).clamp(min=0).sqrt())
        energy = (lost - lost.log()).sum() + (kept - estimate).sum()
        energy += ((estimate + 1) / kept).log().sum() + alpha * (estimate / alpha + 1).log().sum()
        return float(energy)

    most = float(values.sum()) / short
    if most <= 0:
        return 0
    inside = min(math.ceil(short / (1 + alpha)) - 1, len(values)) - 1
    least = max(float(values[inside + 1 :].mean()) if inside + 1 < len(values) else 0.0, most * 1e-12)
    if inside + 1 < len(values):
        least = max(least, float(values[inside + 1]) / threshold)
    ratio = (most / least) ** (1 / _STEPS) if most > least else 1.0
    variance = min((least * ratio**step for step in range(_STEPS + 1)), key=free_energy)
    return int((values > variance * threshold).sum())


def at_most(
    full: Ranks, cost: Callable[[Ranks], float], allowed: float, spectra: Sequence[torch.Tensor], multiple: int = 1
) -> Ranks | None:
    """The ranks that lose least for a cost that is allowed, each a multiple of ``multiple`` or whole; None if the least
    cost more.

    ``cost`` grows with each rank. Of several ranks those are taken whose spectra lose least together, each relative to
    its own energy.
    """
    if len(full) == 1:
        rank = _largest(full[0], multiple, lambda rank: cost((rank,)) <= allowed)
        return None if rank is None else (rank,)
    first, rest = full[0], full[1:]
    found: list[tuple[float, Ranks]] = []
    for rank in _ladder(first, multiple):
        others = at_most(rest, lambda ranks, rank=rank: cost((rank, *ranks)), allowed, spectra[1:], multiple)  # type: ignore[misc]
        if others is not None:
            ranks = (rank, *others)
            found.append((sum(_lost(values, r) for values, r in zip(spectra, ranks, strict=True)), ranks))
    return min(found)[1] if found else None


def _lost(values: torch.Tensor, rank: int) -> float:
    return float(values[rank:].sum() / values.sum().clamp(min=1e-30))


def _ladder(full: int, multiple: int) -> list[int]:
    """The ranks that may be: multiples up to the whole, and the whole; the least is 1 if there is no multiple."""
    return [*range(multiple, full, multiple), full] if multiple < full else [full] if multiple > 1 else [1]


def _largest(full: int, multiple: int, fits: Callable[[int], bool]) -> int | None:
    """The largest rank of the ladder that fits, found by halving."""
    ladder = _ladder(full, multiple)
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        if fits(ladder[middle]):
            low = middle + 1
        else:
            high = middle
    return ladder[low - 1] if low else None

"""The weights of a layer that best give what it gave before, from the inputs that are left to it.

With ``x`` the rows of inputs (see `layer_rows`) and ``y`` the outputs wanted, both centred by their means::

    W = (Y^T X + r W0) (X^T X + r)^-1        b = mean(y) - W mean(x)

minimises ``|y - W x - b|^2 + r |W - W0|^2``. The ridge ``r`` is a small share of the mean of the diagonal: it keeps
few images from saying too much. Sources: He et al., "Channel pruning for accelerating very deep neural networks",
2017, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

RIDGE = 1e-3
"""The ridge, relative to the mean diagonal of the inputs' second moments."""

MOST_COLUMNS = 4608
"""Wider layers are left alone: their matrix of second moments would take gigabytes."""


@dataclass
class Moments:
    """Sums over rows of inputs ``x`` and outputs ``y``, ``f64``; gathered batch by batch."""

    count: int
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    xy: torch.Tensor

    @classmethod
    def empty(cls, columns: int, outputs: int) -> Moments:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(0, zeros(columns), zeros(outputs), zeros(columns, columns), zeros(columns, outputs))

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.count += len(x)
        self.x += x.double().sum(0)
        self.y += y.double().sum(0)
        self.xx += (x.T @ x).double()
        self.xy += (x.T @ y).double()

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the covariances of inputs with inputs and with outputs."""
        count = max(1, self.count)
        xx = self.xx / count - torch.outer(self.x, self.x) / count**2
        return xx, self.xy / count - torch.outer(self.x, self.y) / count**2


def solve(moments: Moments, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights ``f64[outputs, columns]`` and bias ``f64[outputs]``; ``start`` is where the ridge holds them."""
    xx, xy = moments.centred()
    weight = ridge_solution(xx, xy, start)
    count = max(1, moments.count)
    return weight, moments.y / count - weight @ (moments.x / count)


def ridge_solution(xx: torch.Tensor, xy: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return ``f64[outputs, columns]`` for covariances; a matrix of zeros leaves the weights as they are."""
    ridge = max(RIDGE * float(xx.diagonal().mean()), 1e-12)
    regular = xx + ridge * torch.eye(len(xx), dtype=torch.float64)
    solution: torch.Tensor = torch.linalg.solve(regular, xy + ridge * start.T.double())
    return solution.T

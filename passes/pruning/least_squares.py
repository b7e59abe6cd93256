"""The weights of a layer that best give what it gave before, from the inputs that are left to it.

With ``x`` the rows of inputs (see `layer_rows`) and ``y`` the outputs wanted, both centred by their means::

    W = (Y^T X + r W0) (X^T X + r)^-1        b = mean(y) - W mean(x)

minimises ``|y - W x - b|^2 + r |W - W0|^2``. The ridge ``r`` is a small share of the mean of the diagonal: it keeps
few images from saying too much. Sources: He et al., "Channel pruning for accelerating very deep neural networks",
2017, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lvc.compiler.errors import CompileError

RIDGE = 1e-3
"""The ridge, relative to the mean diagonal of the inputs' second moments."""

MOST_COLUMNS = 4608
"""Wider layers are left alone: their matrix of second moments would take gigabytes."""


@dataclass
class Moments:
    """Sums over rows of inputs ``x`` and outputs ``y``, ``f64``; gathered batch by batch.

    Both count from where the first rows lie in the mean (``from_x``, ``from_y``), for the products are made in single
    precision, where a mean far from zero would drown what varies about it.
    """

    count: int
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    xy: torch.Tensor
    from_x: torch.Tensor
    from_y: torch.Tensor

    @classmethod
    def empty(cls, columns: int, outputs: int) -> Moments:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(
            0,
            zeros(columns),
            zeros(outputs),
            zeros(columns, columns),
            zeros(columns, outputs),
            zeros(columns),
            zeros(outputs),
        )

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        if not self.count:
            self.from_x, self.from_y = x.mean(0).double(), y.mean(0).double()
        x, y = x - self.from_x.to(x.dtype), y - self.from_y.to(y.dtype)
        self.count += len(x)
        self.x += x.double().sum(0)
        self.y += y.double().sum(0)
        self.xx += (x.T @ x).double()
        self.xy += (x.T @ y).double()

    def __add__(self, other: Moments) -> Moments:
        """The sums over the rows of both."""
        if not other.count:
            return self
        x, y = other.from_x - self.from_x, other.from_y - self.from_y
        return Moments(
            self.count + other.count,
            self.x + other.x + other.count * x,
            self.y + other.y + other.count * y,
            self.xx + other.xx + torch.outer(other.x + other.count * x, x) + torch.outer(x, other.x),
            self.xy + other.xy + torch.outer(other.x + other.count * x, y) + torch.outer(x, other.y),
            self.from_x,
            self.from_y,
        )

    @property
    def mean_x(self) -> torch.Tensor:
        return self.from_x + self.x / max(1, self.count)

    @property
    def mean_y(self) -> torch.Tensor:
        return self.from_y + self.y / max(1, self.count)

    def of_outputs(self, outputs: slice) -> Moments:
        """The same inputs with some of the outputs."""
        return replace(self, y=self.y[outputs], xy=self.xy[:, outputs], from_y=self.from_y[outputs])

    def error(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Return the squared error of a fit over the rows, summed, less what is the same for every fit."""
        given = weight @ self.xx - 2 * self.xy.T
        shift = bias + weight @ self.from_x - self.from_y
        constant = shift @ (self.count * shift + 2 * (weight @ self.x) - 2 * self.y)
        return float((given * weight).sum() + constant)

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the covariances of inputs with inputs and with outputs."""
        count = max(1, self.count)
        xx = self.xx / count - torch.outer(self.x, self.x) / count**2
        return xx, self.xy / count - torch.outer(self.x, self.y) / count**2


class Gathering:
    """Moments that grow by a few rows at a time: rows wait until there are as many as columns, then count together."""

    def __init__(self, columns: int, outputs: int) -> None:
        self._sums = Moments.empty(columns, outputs)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self._waiting.append((x, y))
        if sum(len(rows) for rows, _ in self._waiting) >= x.shape[1]:
            self.moments()

    def moments(self) -> Moments:
        """The sums over all rows so far."""
        if self._waiting:
            x, y = zip(*self._waiting, strict=True)
            self._waiting = []
            self._sums.add(torch.cat(x), torch.cat(y))
        return self._sums


def solve(moments: Moments, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights ``f64[outputs, columns]`` and bias ``f64[outputs]``; ``start`` is where the ridge holds them."""
    weight = ridge_solution(*moments.centred(), start)
    return weight, moments.mean_y - weight @ moments.mean_x


def ridge_solution(xx: torch.Tensor, xy: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return ``f64[outputs, columns]`` for covariances; a matrix of zeros leaves the weights as they are."""
    (found,) = leading_solutions(xx, xy, start, [len(xx)])
    return found


def leading_solutions(
    xx: torch.Tensor, xy: torch.Tensor, start: torch.Tensor, counts: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Yield for each count the solution without the columns behind the first so many, ``f64[outputs, count]``.

    The Cholesky factor of a leading block is the leading block of the factor, so that one factorisation serves all.
    """
    factor, ridge = _factor(xx)
    forward = torch.linalg.solve_triangular(factor, xy + ridge * start.T.double(), upper=False)
    for count in counts:
        yield torch.linalg.solve_triangular(factor[:count, :count].T, forward[:count], upper=True).T


def inverse(xx: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a covariance with its ridge, ``f64[columns, columns]``."""
    return torch.cholesky_inverse(_factor(xx)[0])


def _factor(xx: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the lower Cholesky factor of a covariance with its ridge, and the ridge.

    The ridge is raised where rounding has left the matrix short of a covariance.
    """
    ridge = max(RIDGE * float(xx.diagonal().mean()), 1e-12)
    for raised in (1.0, 10.0, 100.0, 1000.0):
        factor, failed = torch.linalg.cholesky_ex(xx + raised * ridge * torch.eye(len(xx), dtype=torch.float64))
        if not int(failed) and bool(factor.diagonal().isfinite().all()):
            return factor, raised * ridge
    raise CompileError(
        "what a layer reads on the calibration data has no covariance",
        why="some of it is not finite, or too large for single precision",
        help="look for extreme values in the data, and whether it is preprocessed as the model wants it",
    )

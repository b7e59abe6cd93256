"""Ridge regression from second moments: the weights that best give what is wanted, held where they were.

With ``X`` the inputs and ``Y`` the outputs wanted, both centred by their means::

    W = (Y^T X + r W0) (X^T X + r)^-1

minimises ``|Y - X W^T|^2 + r |W - W0|^2``. The ridge ``r`` is a share of the mean of the diagonal: it keeps few images
from saying too much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from lvc.compiler.errors import CompileError

RIDGE = 1e-3
"""The ridge, relative to the mean diagonal of the inputs' second moments."""

_LEAST = 1e-12


@dataclass(frozen=True)
class NormalEquations:
    """``(C + r) D^T = M`` for the change ``D`` of a layer's weights: the covariance ``C`` of its inputs,
    ``[...,in,in]``, and the covariance ``M`` of inputs and of what is missing in its outputs, ``[...,in,out]``.

    The change ``D^T`` of the weights is ``[...,in,out]`` too.
    """

    inputs: torch.Tensor
    missing: torch.Tensor
    factors: dict[float, torch.Tensor] = field(default_factory=dict)

    def error(self, change: torch.Tensor) -> float:
        """Return the squared error that a change adds, the mean over rows, summed over outputs."""
        return float((change * (self.inputs @ change - 2 * self.missing)).double().sum())

    def solution(self, ridge: float) -> torch.Tensor:
        """Return the change by ridge regression; none if the weights are infinitely stiff."""
        if ridge == math.inf:
            return torch.zeros_like(self.missing)
        return torch.cholesky_solve(self.missing, self.factor(ridge))

    def factor(self, ridge: float) -> torch.Tensor:
        """Return the lower Cholesky factor of the inputs' covariance with a share of its mean on the diagonal.

        That share also stands for inputs that never vary. Factors are kept, for they are most of the work.
        """
        if ridge not in self.factors:
            self.factors[ridge] = factor(self.inputs, ridge)[0]
        return self.factors[ridge]


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
    lower, ridge = factor(xx)
    forward = torch.linalg.solve_triangular(lower, xy + ridge * start.T.double(), upper=False)
    for count in counts:
        yield torch.linalg.solve_triangular(lower[:count, :count].T, forward[:count], upper=True).T


def inverse(xx: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a covariance with its ridge, ``f64[columns, columns]``."""
    return torch.cholesky_inverse(factor(xx)[0])


def factor(covariance: torch.Tensor, share: float = RIDGE) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lower Cholesky factors of covariances ``[...,n,n]`` with their ridges, and the ridges ``[...,1,1]``.

    A ridge is a share of the mean of a diagonal. It is raised where rounding has left a matrix short of a covariance;
    `CompileError` for one that is none.
    """
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    ridge = (share * diagonal.mean(-1)).clamp(min=_LEAST)[..., None, None]
    for _ in range(4):
        lifted = covariance.clone()
        lifted.diagonal(dim1=-2, dim2=-1).add_(ridge[..., 0])
        lower, failed = torch.linalg.cholesky_ex(lifted)
        fails = (failed > 0) | ~lower.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
        if not bool(fails.any()):
            return lower, ridge
        ridge = torch.where(fails[..., None, None], 10 * ridge, ridge)
    raise no_covariance()


def no_covariance() -> CompileError:
    """What is said of values over data that are too large, or no numbers."""
    return CompileError(
        "what a layer reads on the calibration data has no covariance",
        why="some of it is not finite, or too large for single precision",
        help="look for extreme values in the data, and whether it is preprocessed as the model wants it",
    )

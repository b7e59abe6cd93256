"""Round a matrix to a grid so that its products with given inputs change least: each error is passed on.

``W`` multiplies inputs with the second moments ``H = E[x x']``. Columns are rounded in turn, those of the largest
inputs first. What rounding column j adds to the output is made up for, as well as can be, by the columns that are still
free: with ``inv(H) = U' U``, ``U`` upper triangular,

    e = (W_j - round(W_j)) / U_jj        W_k -= e U_jk for all k > j

Source: Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers",
section 3.3, with the order of columns by activations from its implementation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lvc.passes.quantisation.grids import Grid

_BLOCK = 64


@dataclass
class Moments:
    """Sums over rows of inputs ``x[rows,groups,in]`` and of the outputs that are wanted, ``y[rows,groups,out]``.

    Inputs are counted from ``origin``, near their mean, for small differences of large sums are lost.
    """

    origin: torch.Tensor
    rows: int
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    xy: torch.Tensor

    @classmethod
    def empty(cls, origin: torch.Tensor, outputs: int) -> Moments:
        """Nothing yet, of groups with so many outputs; ``origin`` is ``[groups,in]``."""
        groups, inputs = origin.shape

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64)

        return cls(origin, 0, zeros(inputs), zeros(outputs), zeros(inputs, inputs), zeros(inputs, outputs))

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        x, y = (x - self.origin).movedim(1, 0), y.movedim(1, 0)
        self.rows += x.shape[1]
        self.x += x.sum(1).double()
        self.y += y.sum(1).double()
        self.xx += (x.transpose(1, 2) @ x).double()
        self.xy += (x.transpose(1, 2) @ y).double()

    def __add__(self, other: Moments) -> Moments:
        sums = (getattr(self, name) + getattr(other, name) for name in ("rows", "x", "y", "xx", "xy"))
        return Moments(self.origin, *sums)

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the covariance of the inputs, and that of inputs with outputs."""
        x = self.x / self.rows
        inputs = self.xx / self.rows - x[:, :, None] * x[:, None, :]
        return inputs, self.xy / self.rows - x[:, :, None] * (self.y / self.rows)[:, None, :]

    def bias(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the bias with which weights ``[groups,out,in]`` give the wanted mean output, ``f64[groups,out]``."""
        mean = self.origin.double() + self.x / self.rows
        return self.y / self.rows - (weight.double() @ mean[:, :, None])[..., 0]

    def error(self, weight: torch.Tensor) -> float:
        """Return the squared error that weights make about the mean, less what no weights change."""
        inputs, outputs = self.centred()
        return float(((weight @ inputs) * weight).sum() - 2 * (weight * outputs.transpose(1, 2)).sum())


def fitted(weight: torch.Tensor, moments: Moments, stiffness: float) -> torch.Tensor:
    """Return the weights nearest to ``[groups,out,in]`` ones that give the outputs: ridge regression about them."""
    if stiffness == math.inf:
        return weight
    inputs, outputs = moments.centred()
    missing = outputs - inputs @ weight.transpose(1, 2)
    correction: torch.Tensor = torch.linalg.solve(inputs + _ridge(inputs, stiffness), missing)
    return weight + correction.transpose(1, 2)


def rounded(weight: torch.Tensor, inputs: torch.Tensor, grid: Grid, damping: float) -> torch.Tensor:
    """Return weights ``[groups,out,in]`` on the grid, whose products with inputs of a covariance changed least.

    With infinite damping, each is rounded for itself.
    """
    groups, outputs, columns = weight.shape
    scale, zero = (
        part.double().expand(groups * outputs).reshape(groups, outputs, 1) for part in (grid.scale, grid.zero)
    )
    if damping == math.inf:
        return (((weight / scale).round() + zero).clamp(grid.low, grid.high) - zero) * scale
    order = inputs.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    free = weight.double().take_along_dim(order[:, None, :], 2)
    sorted_inputs = inputs.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None, :], 2)
    factor = torch.linalg.cholesky(sorted_inputs + _ridge(inputs, damping))
    upper = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
    result = torch.empty_like(free)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = torch.empty_like(free[..., start:end])
        for j in range(start, end):
            column = free[..., j : j + 1]
            whole = ((column / scale).round() + zero).clamp(grid.low, grid.high)
            result[..., j : j + 1] = (whole - zero) * scale
            error = (column - result[..., j : j + 1]) / upper[:, j, j, None, None]
            free[..., j:end] -= error * upper[:, None, j, j:end]
            errors[..., j - start : j - start + 1] = error
        free[..., end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(result).scatter_(2, order[:, None, :].expand_as(result), result)


def _ridge(inputs: torch.Tensor, damping: float) -> torch.Tensor:
    """Return a share of the mean variance on the diagonal, which also stands for inputs that never vary."""
    size = inputs.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    return damping * size[:, None, None] * torch.eye(inputs.shape[1], dtype=inputs.dtype)

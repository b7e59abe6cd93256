"""Principal axes of second moments, and the singular vectors of matrices that hold a tensor."""

from __future__ import annotations

import torch


def principal_axes(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues of a symmetric matrix, largest first and none below 0, with their vectors as columns."""
    values, axes = torch.linalg.eigh(moments)
    return values.flip(0).clamp(min=0), axes.flip(1)


def unfold(tensor: torch.Tensor, mode: int) -> torch.Tensor:
    """A tensor as a matrix with one row for each index of a mode (Kolda and Bader 2009, section 2.4)."""
    return tensor.movedim(mode, 0).flatten(1)


def mode_axes(tensor: torch.Tensor, mode: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared singular values of an unfolding, largest first, and its left singular vectors as columns."""
    rows = unfold(tensor, mode)
    return principal_axes(rows @ rows.T)


def times(tensor: torch.Tensor, matrix: torch.Tensor, mode: int) -> torch.Tensor:
    """The product of a tensor with a matrix along a mode: its rows take the place of that mode's index."""
    product: torch.Tensor = torch.tensordot(matrix, tensor, ([1], [mode]))
    return product.movedim(0, mode)

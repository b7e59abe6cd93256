"""Second moments of what layers read and shall give: all that linear regression needs of data of any length.

With ``x`` the rows of inputs (see `layer_rows`) and ``y`` the outputs wanted, ``b = mean(y) - W mean(x)`` is the best
bias for any weights, and the squared error of both follows from the moments alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lvc.compiler.measure.comparison.signal import decibels
from lvc.passes.fitting.ridge import RIDGE, NormalEquations

MOST_COLUMNS = 4608
"""Wider layers are left alone: their matrix of second moments would take gigabytes."""

_PANEL = 256
_FEW_ROWS = 1024


@dataclass
class Moments:
    """Sums over rows of inputs ``x`` and outputs ``y``, ``f64``; gathered batch by batch.

    Rows are ``[...,rows,in]`` and ``[...,rows,out]``: what stands before the rows, such as groups of channels, has sums
    of its own. Both count from where the first rows lie in the mean (``from_x``, ``from_y``), for the products are made
    in single precision, where a mean far from zero would drown what varies about it. Of ``xx``, which is symmetric,
    only the lower triangle is summed; the upper one is made when it is read.
    """

    count: int
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor
    from_x: torch.Tensor
    from_y: torch.Tensor
    has_upper: bool = False

    @classmethod
    def empty(cls, columns: int, outputs: int, *before: int) -> Moments:
        """Nothing yet; ``before`` are the sizes of what stands before the rows."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*before, *shape, dtype=torch.float64)

        return cls(
            0,
            zeros(columns),
            zeros(outputs),
            zeros(columns, columns),
            zeros(columns, outputs),
            zeros(outputs),
            zeros(columns),
            zeros(outputs),
        )

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take note of rows."""
        if not self.count:
            self.from_x, self.from_y = x.mean(-2).double(), y.mean(-2).double()
        x, y = x - self.from_x[..., None, :].to(x.dtype), y - self.from_y[..., None, :].to(y.dtype)
        self.count += x.shape[-2]
        self.has_upper = False
        self.x += x.sum(-2, dtype=torch.float64)
        self.y += y.sum(-2, dtype=torch.float64)
        for at in range(0, x.shape[-1], _PANEL):
            panel = slice(at, at + _PANEL)
            self.xx[..., at:, panel] += x[..., at:].mT @ x[..., panel]
        self.xy += x.mT @ y
        self.yy += y.square().sum(-2, dtype=torch.float64)

    def __add__(self, other: Moments) -> Moments:
        """The sums over the rows of both."""
        if not other.count:
            return self
        x, y = other.from_x - self.from_x, other.from_y - self.from_y
        far_x, far_y = other.x + other.count * x, other.y + other.count * y
        return Moments(
            self.count + other.count,
            self.x + far_x,
            self.y + far_y,
            self.xx + other.xx + _outer(far_x, x) + _outer(x, other.x),
            self.xy + other.xy + _outer(far_x, y) + _outer(x, other.y),
            self.yy + other.yy + y * (other.y + far_y),
            self.from_x,
            self.from_y,
        )

    @property
    def mean_x(self) -> torch.Tensor:
        return self.from_x + self.x / max(1, self.count)

    @property
    def mean_y(self) -> torch.Tensor:
        return self.from_y + self.y / max(1, self.count)

    @property
    def variances(self) -> torch.Tensor:
        """By how much each input varies, ``[...,in]``."""
        return (self.xx.diagonal(dim1=-2, dim2=-1) - self.x.square() / max(1, self.count)) / max(1, self.count)

    def of_outputs(self, outputs: slice) -> Moments:
        """The same inputs with some of the outputs."""
        y, xy, yy, from_y = (part[..., outputs] for part in (self.y, self.xy, self.yy, self.from_y))
        return replace(self, y=y, xy=xy, yy=yy, from_y=from_y)

    def of_group(self, place: int) -> Moments:
        """The sums of one of what stands before the rows."""
        parts = (self.x, self.y, self._squares(), self.xy, self.yy, self.from_x, self.from_y)
        x, y, xx, xy, yy, from_x, from_y = (part[place] for part in parts)
        return Moments(self.count, x, y, xx, xy, yy, from_x, from_y, has_upper=True)

    def error(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Return the squared error of weights ``[...,out,in]`` and a bias ``[...,out]`` over the rows, summed."""
        given = weight @ self._squares() - 2 * self.xy.mT
        shift = bias + _times(weight, self.from_x) - self.from_y
        constant = shift * (self.count * shift + 2 * _times(weight, self.x) - 2 * self.y)
        return float((given * weight).sum() + constant.sum() + self.yy.sum())

    def decibels(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Return the signal to noise of a fit in dB, over all rows and outputs."""
        power = self.yy + 2 * self.from_y * self.y + self.count * self.from_y.square()
        return decibels(float(power.sum()), self.error(weight, bias))

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the covariances of inputs with inputs and with outputs."""
        count = max(1, self.count)
        x, y = self.x / count, self.y / count
        return (self._squares() / count).sub_(_outer(x, x)), (self.xy / count).sub_(_outer(x, y))

    def normal_equations(self, weight: torch.Tensor) -> NormalEquations:
        """Return what weights ``[...,out,in]`` leave to be wished for, in their precision."""
        xx, xy = (part.to(weight.dtype) for part in self.centred())
        return NormalEquations(xx, xy - xx @ weight.mT)

    def _squares(self) -> torch.Tensor:
        """Both triangles of the products of inputs."""
        if not self.has_upper:
            for at in range(0, self.xx.shape[-1], _PANEL):
                here, behind = slice(at, at + _PANEL), slice(at + _PANEL, None)
                square = self.xx[..., here, here]
                square.copy_(square.tril() + square.tril(-1).mT)
                self.xx[..., here, behind] = self.xx[..., behind, here].mT
            self.has_upper = True
        return self.xx


def _outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left[..., :, None] * right[..., None, :]


def _times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return (matrix @ vector[..., None])[..., 0]


class Gathering:
    """Moments that grow by a few rows at a time: rows wait until there are as many as columns, or a thousand, and then
    count together."""

    def __init__(self, columns: int, outputs: int, *before: int) -> None:
        self._sums = Moments.empty(columns, outputs, *before)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self._waiting.append((x, y))
        if sum(rows.shape[-2] for rows, _ in self._waiting) >= max(_FEW_ROWS, x.shape[-1]):
            self.moments()

    def moments(self) -> Moments:
        """The sums over all rows so far."""
        if self._waiting:
            x, y = zip(*self._waiting, strict=True)
            self._waiting = []
            self._sums.add(torch.cat(x, -2), torch.cat(y, -2))
        return self._sums


def solve(moments: Moments, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights ``f64[...,out,in]`` and bias ``f64[...,out]``; ``start`` is where the ridge holds them."""
    weight = start.double() + moments.normal_equations(start.double()).solution(RIDGE).mT
    return weight, moments.mean_y - _times(weight, moments.mean_x)

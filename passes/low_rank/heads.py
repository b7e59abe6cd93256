"""The dimensions of attention's heads in the order of what they are worth, so that the last of them can go.

What two layers give together, ``q^T k`` for each head, stays as it is with ``A^T q`` and ``B^T k`` in their place if
``A B^T = 1``. With ``S`` and ``T`` the second moments of both, and roots of them, ``S = L L^T`` and ``T = M M^T``, the
singular value decomposition ``L^T M = U s V^T`` gives ``A = L^-T U s^1/2`` and ``B = M^-T V s^1/2``: of all matrices
of rank ``r``, ``A_r B_r^T`` is the one with which the product moves least over independent places of the data. Without
data the channels that layers read are taken to vary alike, and on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments, tensor
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.attention import Product
from lvc.passes.analysis.readings import Handing, Reading
from lvc.passes.budget.costs import Size
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.statistics import RIDGE, Statistics

_LEAST = 1e-10


@dataclass(frozen=True, eq=False)
class Bases:
    """The basis of each head for what a product's two layers give, ``f64[heads, width, width]``: columns in falling
    order of ``energies``, which are those of all heads together, ``f64[width]``."""

    first: torch.Tensor
    second: torch.Tensor
    energies: torch.Tensor

    def leading(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """So many dimensions of each head, ``f64[heads, width, rank]``."""
        return self.first[..., :rank], self.second[..., :rank]

    def lost(self, rank: int) -> float:
        """The squared error of the product with so many dimensions, relative to its energy."""
        return float(self.energies[rank:].sum() / self.energies.sum().clamp(min=1e-30))


@dataclass(frozen=True, eq=False)
class Heads:
    """A product of attention with its layers, that of what it multiplies first and the other, and the ``sizes`` of all
    three together at each width of a head, from 0 on. ``fitted`` is the layer that reads what heads give, if one does
    and it can make up for something."""

    product: Product
    first: Layer
    second: Layer
    sizes: tuple[Size, ...] = ()
    fitted: Node | None = None

    @property
    def node(self) -> Node:
        return self.product.node

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.product.name

    @property
    def reads(self) -> bool:
        """Whether the second layer reads what is mixed of the first, so that it can make up for something."""
        return isinstance(self.product.second, Handing)

    @property
    def judged(self) -> Layer:
        """The layer whose result tells what narrower heads do."""
        return self.second if self.reads else self.first


def bases_of(model: Model, heads: Heads, known: Mapping[Layer, Statistics]) -> Bases:
    """The dimensions of heads in order, as far as is known of their layers."""
    product, first, second = heads.product, heads.first, heads.second
    reading, other = product.first, product.second
    if isinstance(other, Reading):
        one = _made(model, reading, first, known[first], shifts=False)
        two = _made(model, other, second, known[second], shifts=product.shifts)
    else:
        one, two = _made(model, reading, first, Statistics(), shifts=False), _read(other, second)
        mixed = known[second].inputs  # about the mean, for which the layer's bias makes up
        one = one if mixed is None else _stable(_blocks(mixed, other.columns), one)
    return _bases(one, two)


def _bases(first: torch.Tensor, second: torch.Tensor) -> Bases:
    """The bases for second moments ``f64[heads, width, width]``."""
    (left, left_inverse), (right, right_inverse) = _root(first), _root(second)
    u, s, vt = torch.linalg.svd(left.mT @ right)
    scale = s.sqrt()[:, None, :]
    return Bases(left_inverse @ u * scale, right_inverse @ vt.mT * scale, s.square().sum(0))


def _root(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A root ``L`` of each matrix, ``L L^T``, and ``L^-T``; what no direction has is taken to be a trace."""
    values, axes = torch.linalg.eigh(moments)
    most = values.amax(-1, keepdim=True).clamp(min=1e-30)
    spread = values.clamp(min=0).maximum(_LEAST * most).sqrt()[:, None, :]
    return axes * spread, axes / spread


def _made(model: Model, reading: Reading, layer: Layer, known: Statistics, *, shifts: bool) -> torch.Tensor:
    """Second moments of what a layer gives to each head, about the mean where shifts make no difference."""
    rows, bias = reading.rows, tensor(model.module, arguments(layer.node)["bias"])
    weight = layer.kernel.weight[rows].flatten(2)
    plain = weight @ weight.mT
    if bias is not None and not shifts:
        plain = plain + _outer(bias.detach().double()[rows])
    if known.outputs is None:
        return plain
    found = _blocks(known.outputs, rows)
    if known.mean is not None and not shifts:
        found = found + _outer(known.mean[rows])
    return _stable(found, plain)


def _read(handing: Handing, layer: Layer) -> torch.Tensor:
    """What a layer makes of each dimension of a head with each other, over all it gives."""
    columns = layer.kernel.weight[:, handing.columns].flatten(3).permute(1, 2, 0, 3).flatten(2)
    return columns @ columns.mT


def _stable(found: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Moments of data with a trace of those that weights alone would give: what never varied on the data might."""
    return found + RIDGE * plain * (_trace(found) / _trace(plain).clamp(min=1e-30))


def _blocks(moments: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Those of each head."""
    return moments[channels[:, :, None], channels[:, None, :]]


def _outer(vectors: torch.Tensor) -> torch.Tensor:
    return vectors[..., :, None] * vectors[..., None, :]


def _trace(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]

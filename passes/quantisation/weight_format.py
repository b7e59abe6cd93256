"""What stored weights can be: a codebook of values, and a scale for each row of weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from lvc.compiler.ir.operators.codebook import fit_int8, nearest
from lvc.compiler.ir.operators.coded_weights import pack
from lvc.compiler.pipeline.registry import Classes, Component

_POWERS = tuple(2.0**n for n in range(8))


@dataclass(frozen=True)
class Codebook:
    """``values`` ``f32[2^bits]`` in rising order, zero among them, and ``scale`` ``f32[rows]``, all above zero."""

    values: torch.Tensor
    scale: torch.Tensor

    def nearest(self, rows: torch.Tensor) -> torch.Tensor:
        """Return for each weight the code of the nearest value; ``i64`` of the shape of ``rows``."""
        return nearest(rows, self.values, self.scale)

    def error(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the squared error of each row."""
        return (self.values[self.nearest(rows)] * self.scale[:, None] - rows).double().square().sum(1)

    def as_integers(self) -> Codebook:
        """Return the codebook of integers that int8 holds, if none falls together with another; else itself.

        Values are multiplied by a power of two if that makes them integers, else counted in 64ths of the largest,
        which processors without VNNI multiply fastest, or of a 127th.
        """
        exact = [steps for steps in _POWERS if fit_int8(self.values * steps)]
        most = float(self.values.abs().max())
        for steps in exact or [64 / most, 127 / most]:
            found = (self.values * steps).round()
            if int((found.diff() > 0).sum()) == int((self.values.diff() > 0).sum()):
                return Codebook(found, self.scale / steps)
        return self


@dataclass(frozen=True)
class Coded:
    """A weight as `lvc::decode` takes it."""

    codes: torch.Tensor
    values: torch.Tensor
    scale: torch.Tensor
    bits: int
    shape: tuple[int, ...]

    @property
    def own_bytes(self) -> int:
        """Those of the codes and scales, which no other weight shares."""
        return self.codes.nbytes + self.scale.nbytes

    @property
    def bytes(self) -> int:
        return self.own_bytes + self.values.nbytes

    @property
    def table(self) -> tuple[float, ...]:
        """The values, which weights that have the same share."""
        return tuple(self.values.tolist())

    def decoded(self) -> torch.Tensor:
        """The weight that it stands for."""
        weight: torch.Tensor = torch.ops.lvc.decode(self.codes, self.values, self.scale, self.bits, list(self.shape))
        return weight


@dataclass(frozen=True, kw_only=True)
class WeightFormat(Component):
    """A way to choose codebooks. Fields are options, as for passes."""

    @abstractmethod
    def fit(self, rows: torch.Tensor, bits: int) -> Codebook:
        """Choose the codebook for rows of weights, ``f32[rows, n]``: one for all, a scale for each."""

    def encode(self, weight: torch.Tensor, bits: int, group: int = 0) -> Coded:
        """Encode a weight ``[O, I, ...]``, with a scale for each ``group`` input channels; 0 for one for all."""
        rows = grouped(weight, group)
        codebook = self.fit(rows, bits)
        codes = pack(codebook.nearest(rows), bits)
        return Coded(codes, codebook.values, codebook.scale.reshape(len(weight), -1), bits, tuple(weight.shape))


def grouped(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Return a weight ``[O, I, ...]`` in rows of ``group`` input channels of an output channel; 0 for all of them."""
    groups = weight.shape[1] // group if group else 1
    return weight.detach().float().reshape(len(weight) * groups, -1)


def largest(rows: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each row, 1 for rows of zeros."""
    most = rows.abs().amax(1)
    return torch.where(most > 0, most, torch.ones_like(most))


WEIGHT_FORMATS: Classes[WeightFormat] = Classes(
    "lvc.passes.quantisation.weight_format:WeightFormat", "lvc.passes.weight_formats", "weight format"
)

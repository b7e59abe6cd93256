"""Quantisation parameters: which real numbers the integers of a tensor stand for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, spec, tensor
from lvc.compiler.ir.operators import integer
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK, fit_int8, nearest

_FAKE = (aten.fake_quantize_per_tensor_affine.default, aten.fake_quantize_per_channel_affine.default)


@dataclass(frozen=True)
class PerTensorParameters:
    """The numbers ``scale * (q - zero_point)`` for integers q in ``[low, high]``."""

    scale: float
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, node: Node) -> PerTensorParameters:
        """Those of a quantise, or of a fake quantisation with one scale."""
        args = arguments(node)
        if is_call(node, integer.quantise):
            return cls(args["scale"], args["zero_point"], args["low"], args["high"])
        return cls(args["scale"], args["zero_point"], args["quant_min"], args["quant_max"])

    @property
    def fits(self) -> bool:
        """Whether 8 bits hold its integers."""
        return -128 <= self.low <= self.high <= 127 or 0 <= self.low <= self.high <= 255

    @property
    def dtype(self) -> torch.dtype:
        return integer.data_type(self.low)

    def nearest(self, value: float) -> int:
        """The integer that a real one is rounded to."""
        number = torch.tensor(value, dtype=torch.float32)
        return int(integer.quantise(number, self.scale, self.zero_point, self.low, self.high))

    def exactly(self, value: float) -> int | None:
        """The integer that stands for a real one; None if there is none."""
        q = self.nearest(value)
        return q if (q - self.zero_point) * self.scale == value else None


def dequantised(node: object) -> tuple[Node, float, int] | None:
    """The integers behind a dequantise, their scale and zero point; None for any other node."""
    if not isinstance(node, Node) or not is_call(node, integer.dequantise):
        return None
    args = arguments(node)
    return args["q"], args["scale"], args["zero_point"]


@dataclass(frozen=True)
class IntegerWeight:
    """Weights in integers about zero: ``scale[o] * q[o]``, one scale for all or one for each output channel."""

    name: str
    q: torch.Tensor
    scale: torch.Tensor


def integer_weight(module: GraphModule, node: object) -> IntegerWeight | str:
    """Read a quantised weight; a sentence if it is not, or not to integers that int8 can hold."""
    if isinstance(node, Node) and is_call(node, FAKE_QUANTIZE_CODEBOOK):
        return _weight_of_codebook(module, node)
    if not isinstance(node, Node) or not is_call(node, *_FAKE):
        return "its weight is not quantised"
    args = arguments(node)
    stored = tensor(module, args["self"])
    if stored is None:
        return "its weight is computed in the graph"
    scale, zero_point = _scales(module, args["scale"]), _scales(module, args["zero_point"])
    if scale is None or zero_point is None:
        return "the scales of its weight are computed in the graph"
    if scale.numel() > 1 and args["axis"] % stored.ndim != 0:
        return f"its weight has scales along dimension {args['axis']}, and sums need one for each output channel"
    along = [-1] + [1] * (stored.ndim - 1)
    steps = (stored.detach() * (1 / scale).reshape(along)).round() + zero_point.reshape(along)
    q = steps.clamp(args["quant_min"], args["quant_max"]) - zero_point.reshape(along)
    if q.numel() and (q.min() < -128 or q.max() > 127):
        return f"its weight reaches from {int(q.min())} to {int(q.max())} steps about zero, and int8 from -128 to 127"
    return IntegerWeight(str(args["self"].target), q.to(torch.int8), scale.double())


def _weight_of_codebook(module: GraphModule, node: Node) -> IntegerWeight | str:
    args = arguments(node)
    stored, values, scale = (tensor(module, args[name]) for name in ("self", "values", "scale"))
    if stored is None or values is None or scale is None:
        return "its weight is computed in the graph"
    if scale.shape[1] > 1:
        return "its weight has scales for groups of input channels, and sums need one for each output channel"
    if not fit_int8(values):
        return f"the {len(values)} values of its weight's codebook are not integers that int8 holds"
    q = values[nearest(stored.detach().flatten(1), values, scale.flatten())].reshape(stored.shape)
    return IntegerWeight(str(args["self"].target), q.to(torch.int8), scale.flatten().double())


def _scales(module: GraphModule, value: object) -> torch.Tensor | None:
    if isinstance(value, Node):
        stored = tensor(module, value)
        return None if stored is None else stored.detach().float()
    return torch.tensor([value], dtype=torch.float32)


def describe(node: object) -> str:
    """How a sentence names an operand."""
    if not isinstance(node, Node):
        return "a number"
    return f"'{node.name}' ({spec(node)})"

"""Grids: the numbers ``scale * (q - zero)`` for whole q from ``low`` to ``high``, and how one is made for a range.

With ``b`` bits, a grid for a range ``[l, h]`` that holds zero is, in float64 before it is stored::

    symmetric    scale = max(-l, h) / (2^(b-1) - 1)    zero = 0                  q from -(2^(b-1) - 1)
    symmetric, activations that are never negative     scale = h / (2^b - 1)     zero = 0, q from 0
    otherwise    scale = (h - l) / (2^b - 1)           zero = round(q_low - l / scale)

Zero is always a point of the grid, since convolutions pad with it. A power-of-two scale is the next one that is not
smaller, so that nothing in the range is cut off.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", section 2.1; Nagel et al. 2021, "A white paper on neural network quantization", section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, tensor
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED

STEPS = ("linear", "power-of-two")
"""What the step of a grid may be."""

_SMALLEST = 2.0**-100  # a scale whose inverse is still a number


@dataclass(frozen=True)
class QuantisationScheme:
    """The grids that come into question for a value; ``stored`` if it is a weight."""

    bits: int = 8
    axis: int | None = None
    symmetric: bool = False
    scale: str = "linear"
    stored: bool = False
    channels: int = 0

    @classmethod
    def of(cls, place: Node) -> QuantisationScheme:
        """Read what a `lvc::uncalibrated` call asks for."""
        args = arguments(place)
        bits, axis, symmetric, scale, channels = (
            args[name] for name in ("bits", "axis", "symmetric", "scale", "channels")
        )
        return cls(bits, axis, symmetric, scale, args["self"].op == "get_attr", channels)

    @property
    def has_codebook(self) -> bool:
        """Whether more than one step and one zero point for each channel says where a weight may lie."""
        return self.scale not in STEPS or self.channels > 0

    def parameters(self, low: torch.Tensor, high: torch.Tensor) -> QuantisationParameters:
        """Return the grid for a range, or those for one range a channel; ``low`` and ``high`` are scalars or rows."""
        low, high = low.double().clamp(max=0), high.double().clamp(min=0)
        least, most = self.bounds(bool((low < 0).any()))
        span = torch.maximum(-low, high) / most if self.symmetric else (high - low) / (most - least)
        scale = torch.where(span > 0, span.clamp(min=_SMALLEST), 1.0)
        if self.scale == "power-of-two":
            scale = torch.exp2(torch.log2(scale).ceil())
        scale = scale.float()
        zero = torch.zeros_like(scale) if self.symmetric else (least - low / scale).round().clamp(least, most)
        return QuantisationParameters(scale, zero.int(), least, most, self.axis)

    def bounds(self, has_negatives: bool) -> tuple[int, int]:
        """Return the smallest and the largest integer of the grid."""
        half = 1 << (self.bits - 1)
        if self.symmetric and (has_negatives or self.stored):
            return 1 - half, half - 1
        return (-half, half - 1) if self.stored else (0, 2 * half - 1)


@dataclass(frozen=True)
class QuantisationParameters:
    """A grid, or one for each place of an axis; ``scale`` is ``f32[]`` or ``f32[n]``, ``zero`` ``i32`` of its shape.

    ``levels`` are the numbers ``q``, in rising order, if they are not all whole ones from ``low`` to ``high``.
    """

    scale: torch.Tensor
    zero: torch.Tensor
    low: int
    high: int
    axis: int | None = None
    codebook: torch.Tensor | None = None

    @classmethod
    def of(cls, module: GraphModule, node: Node) -> QuantisationParameters:
        """Read the grid of a fake quantisation; of one on levels, each output channel must have one scale."""
        args = arguments(node)
        if node.target is FAKE_QUANTIZE_CODEBOOK:
            codebook, scales = tensor(module, args["values"]), tensor(module, args["scale"])
            assert codebook is not None
            assert scales is not None
            zeros = torch.zeros(len(scales), dtype=torch.int32)
            return cls(scales[:, 0], zeros, int(codebook[0]), int(codebook[-1]), 0, codebook)
        bounds = (args["quant_min"], args["quant_max"])
        if node.target is aten.fake_quantize_per_tensor_affine.default:
            return cls(torch.tensor(args["scale"]), torch.tensor(args["zero_point"], dtype=torch.int32), *bounds)
        scale, zero = tensor(module, args["scale"]), tensor(module, args["zero_point"])
        assert scale is not None
        assert zero is not None
        return cls(scale.detach(), zero, *bounds, args["axis"])

    @property
    def points(self) -> int:
        """How many numbers it has for a channel."""
        return self.high - self.low + 1 if self.codebook is None else len(self.codebook)

    def round(self, values: torch.Tensor) -> torch.Tensor:
        """Return the nearest points of the grid."""
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, float(self.scale), int(self.zero), self.low, self.high)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero, self.axis, self.low, self.high)

    def replace(self, module: GraphModule, place: Node) -> Node:
        """Put the fake quantisation on this grid in the stead of a `lvc::uncalibrated` call, under its name."""
        assert place.target is UNCALIBRATED
        value = place.args[0]
        if self.axis is None:
            place.args = (value, float(self.scale), int(self.zero), self.low, self.high)
            place.target = aten.fake_quantize_per_tensor_affine.default
            return place
        scale = add_tensor(module, place, f"{place.name}_scale", self.scale, trainable=False)
        zero = add_tensor(module, place, f"{place.name}_zero", self.zero, trainable=False)
        place.args = (value, scale, zero, self.axis, self.low, self.high)
        place.target = aten.fake_quantize_per_channel_affine.default
        return place

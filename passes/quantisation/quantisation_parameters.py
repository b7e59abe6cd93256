"""Quantisation parameters: scale, zero point, lowest and highest integer, and how they are found for a range.

They stand for the numbers ``scale * (q - zero)``. With ``b`` bits, those for a range ``[l, h]`` that holds zero are, in
float64 before they are stored::

    symmetric    scale = max(-l, h) / (2^(b-1) - 1)    zero = 0                  q from -(2^(b-1) - 1)
    symmetric, activations that are never negative     scale = h / (2^b - 1)     zero = 0, q from 0
    otherwise    scale = (h - l) / (2^b - 1)           zero = round(q_low - l / scale)

Zero is always among the numbers, since convolutions pad with it. A power-of-two scale is the next one that is not
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
"""What a scale may be."""

_SMALLEST = 2.0**-100  # a scale whose inverse is still a number


@dataclass(frozen=True)
class QuantisationScheme:
    """What kind of quantisation parameters a value wants; ``stored`` if it is a weight."""

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
        """Return those for a range, or for one range a channel; ``low`` and ``high`` are scalars or rows."""
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
        """Return the smallest and the largest integer."""
        half = 1 << (self.bits - 1)
        if self.symmetric and (has_negatives or self.stored):
            return 1 - half, half - 1
        return (-half, half - 1) if self.stored else (0, 2 * half - 1)


@dataclass(frozen=True)
class QuantisationParameters:
    """Those of a tensor, or of each place of an axis; ``scale`` is ``f32[]`` or ``f32[n]``, ``zero`` ``i32`` of that.

    ``codebook`` has the numbers ``q``, in rising order, if they are not all integers from ``low`` to ``high``.
    """

    scale: torch.Tensor
    zero: torch.Tensor
    low: int
    high: int
    axis: int | None = None
    codebook: torch.Tensor | None = None

    @classmethod
    def of(cls, module: GraphModule, node: Node) -> QuantisationParameters:
        """Read those of a fake quantisation; by a codebook, each output channel must have one scale."""
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
        """How many numbers a channel can have."""
        return self.high - self.low + 1 if self.codebook is None else len(self.codebook)

    def round(self, values: torch.Tensor) -> torch.Tensor:
        """Return the nearest numbers that they stand for."""
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, float(self.scale), int(self.zero), self.low, self.high)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero, self.axis, self.low, self.high)

    def replace(self, module: GraphModule, place: Node) -> Node:
        """Put the fake quantisation with these in the stead of a `lvc::uncalibrated` call, under its name."""
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

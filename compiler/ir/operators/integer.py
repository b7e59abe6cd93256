"""Integer operators: what an 8-bit network computes, defined once.

The PyTorch code below is the exact meaning; every kernel must match it bit for bit. An 8-bit tensor ``q`` (`DATA`)
stands for the numbers ``scale * (q - zero_point)``. Products are summed in int32 without overflow, which
`lvc.compiler.ir.bounds` proves for given weights. What leaves the sums is computed in single precision, in this order:
convert, multiply, round half to even, add the zero point, limit to ``[low, high]``. There is no other rounding: sums
of two products have factors so short that the products are exact, so that a fused multiply-add gives the same.
Functions of real numbers between the sums and the rounding are defined in `lvc.compiler.ir.operators.functions`.

A result is int8 where ``low`` is negative, else uint8. Operands of other types raise `TypeError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from lvc.compiler.ir.operators.library import operator, operators_of

DATA = (torch.uint8, torch.int8)


def data_type(low: int) -> torch.dtype:
    """The type that holds integers from ``low`` on."""
    return torch.int8 if low < 0 else torch.uint8


@operator("quantise(Tensor x, float scale, int zero_point, int low, int high) -> Tensor")
def quantise(x: torch.Tensor, scale: float, zero_point: int, low: int, high: int) -> torch.Tensor:
    """round(x * (1 / scale)) + zero_point, limited; as ATen's fake quantisation has it; of NaN ``low``."""
    demand(x, torch.float32)
    value = (x * inverse(scale)).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return _store(value, zero_point, low, high)


@operator("dequantise(Tensor q, float scale, int zero_point) -> Tensor")
def dequantise(q: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """scale * (q - zero_point) as float32."""
    return _centred(q, zero_point).float() * single(scale)


@operator(
    "conv2d(Tensor input, Tensor weight, Tensor? bias, int zero_point, int[2] stride, int[2] padding, int[2] dilation, "
    "int groups) -> Tensor"
)
def conv2d(  # noqa: PLR0917 - torch gives arguments by place
    q: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    zero_point: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """The int32 sums of ``(q - zero_point) * weight``, zeros outside the image, plus an int32 bias."""
    demand(weight, torch.int8)
    data = _centred(q, zero_point).double()  # exact: no sum reaches 2**53
    sums = torch.nn.functional.conv2d(data, weight.double(), None, stride, padding, dilation, groups)
    return _with_bias(sums, bias, 1)


@operator("linear(Tensor input, Tensor weight, Tensor? bias, int zero_point) -> Tensor")
def linear(q: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, zero_point: int) -> torch.Tensor:
    """The int32 products of rows of ``q - zero_point`` with rows of the weight, plus an int32 bias."""
    demand(weight, torch.int8)
    return _with_bias(_centred(q, zero_point).double() @ weight.double().T, bias, -1)


@operator("matmul(Tensor self, Tensor other, int zero_self, int zero_other) -> Tensor")
def matmul(a: torch.Tensor, b: torch.Tensor, zero_a: int, zero_b: int) -> torch.Tensor:
    """The int32 products of the matrices ``a - zero_a`` with the matrices ``b - zero_b``, both computed."""
    return (_centred(a, zero_a).double() @ _centred(b, zero_b).double()).to(torch.int32)


@operator("sum_pool2d(Tensor q, int zero_point, int[2] kernel_size, int[2] stride, int[2] padding) -> Tensor")
def sum_pool2d(
    q: torch.Tensor, zero_point: int, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    """The int32 sums of windows of ``q - zero_point``, zeros outside the image."""
    data = _centred(q, zero_point).double()
    sums = torch.nn.functional.avg_pool2d(data, list(kernel_size), list(stride), list(padding), divisor_override=1)
    return sums.to(torch.int32)


@operator("mul(Tensor a, int zero_a, Tensor b, int zero_b) -> Tensor")
def mul(a: torch.Tensor, zero_a: int, b: torch.Tensor, zero_b: int) -> torch.Tensor:
    """The int32 products ``(a - zero_a) * (b - zero_b)``."""
    return _centred(a, zero_a) * _centred(b, zero_b)


@operator("rescale(Tensor sums, Tensor scale, int axis) -> Tensor")
def rescale(sums: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    """scale * sums as float32, with one scale for all or one for each place along an axis."""
    return _scaled(sums, scale, axis)


@operator("requantise(Tensor sums, Tensor multiplier, int axis, int zero_point, int low, int high) -> Tensor")
def requantise(  # noqa: PLR0917 - torch gives arguments by place
    sums: torch.Tensor, multiplier: torch.Tensor, axis: int, zero_point: int, low: int, high: int
) -> torch.Tensor:
    """round(multiplier * sums) + zero_point, limited; one multiplier for all or one for each place along an axis."""
    return _store(_scaled(sums, multiplier, axis), zero_point, low, high)


@operator(
    "add(Tensor a, float multiplier_a, int zero_a, Tensor b, float multiplier_b, int zero_b, int zero_point, int low, "
    "int high) -> Tensor"
)
def add(  # noqa: PLR0917 - torch gives arguments by place
    a: torch.Tensor,
    multiplier_a: float,
    zero_a: int,
    b: torch.Tensor,
    multiplier_b: float,
    zero_b: int,
    zero_point: int,
    low: int,
    high: int,
) -> torch.Tensor:
    """round(multiplier_a * (a - zero_a) + multiplier_b * (b - zero_b)) + zero_point, limited.

    The multipliers are those of `short_multiplier`.
    """
    left = _centred(a, zero_a).float() * short_multiplier(multiplier_a)
    right = _centred(b, zero_b).float() * short_multiplier(multiplier_b)
    return _store(left + right, zero_point, low, high)


@operator("table(Tensor q, Tensor values) -> Tensor")
def table(q: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The entry for each q of a table of 256, the first for the least number of q's type."""
    demand(q, *DATA)
    demand(values, *DATA)
    if tuple(values.shape) != (256,):
        raise TypeError(f"a table has 256 entries, not {tuple(values.shape)}")
    return values[q.long() - torch.iinfo(q.dtype).min]


OPERATORS = operators_of(__name__)


def inverse(scale: float) -> float:
    """1 / scale in single precision."""
    return float(np.float32(1) / np.float32(scale))


def short_multiplier(value: float) -> float:
    """The nearest number with 16 significant bits: its product with a 9-bit difference is exact in float32."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2**16), exponent - 16)


def single(value: float) -> float:
    return float(np.float32(value))


def demand(tensor: torch.Tensor, *dtypes: torch.dtype) -> None:
    if tensor.dtype not in dtypes:
        raise TypeError(f"an operand is {tensor.dtype}, and must be {' or '.join(map(str, dtypes))}")


def _centred(q: torch.Tensor, zero_point: int) -> torch.Tensor:
    demand(q, *DATA)
    return q.to(torch.int32) - zero_point


def _with_bias(sums: torch.Tensor, bias: torch.Tensor | None, axis: int) -> torch.Tensor:
    totals = sums.to(torch.int32)
    if bias is None:
        return totals
    demand(bias, torch.int32)
    return totals + _along(bias, totals, axis)


def _scaled(sums: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    demand(sums, torch.int32)
    demand(scale, torch.float32)
    return sums.float() * _along(scale, sums, axis)


def _along(values: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """Values for the places along an axis, or one for all, in a shape that broadcasts."""
    if values.ndim != 1 or values.shape[0] not in (1, like.shape[axis]):
        raise TypeError(f"{tuple(values.shape)} values do not fit {like.shape[axis]} channels")
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _store(value: torch.Tensor, zero_point: int, low: int, high: int) -> torch.Tensor:
    """Round half to even, add the zero point, limit to a range of integers of 8 bits."""
    if not (-128 <= low <= high <= 127 or 0 <= low <= high <= 255):
        raise TypeError(f"integers from {low} to {high} do not fit 8 bits")
    return (value.round() + zero_point).clamp(low, high).to(data_type(low))

"""What tensor cores multiply: words of two float16 or bfloat16, whose products are exact and summed in float32, float32
that is rounded to TF32, or words of four bytes, summed in int32 with nothing lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tvm import tirx

from lvc.backends.tvm import bfloat16
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.factors import MOST_TERMS, SINGLE, Bytes, Pace
from lvc.backends.tvm.gpu.kernels.tile import TILES, Size, choose_tile
from lvc.backends.tvm.nest import Expr
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Array, dtype_text
from lvc.backends.tvm.short_floats import FLOAT16, widen
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.operators import integer
from lvc.compiler.ir.tf32 import to_tf32

SIGN = 0x80  # what signed bytes are less than unsigned ones of the same bits but for the first
MOST_PAIRS = 16_000  # products of bytes in a sum that is taken apart into four, each of which fits with the others


class MatrixFactor(Pace, Protocol):
    """``data`` and ``weight`` are the types of elements in memory, ``dtype`` is that of sums; a word has so many
    ``elements``."""

    @property
    def data(self) -> str: ...

    @property
    def weight(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def value(self, element: Expr) -> Expr:
        """An element in the type of sums."""
        ...

    def outside(self) -> Expr:
        """What stands for an element outside of the data."""
        ...

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights as they are stored."""
        ...

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        """Add the bias along a dimension, and what the sums lack."""
        ...


@dataclass(frozen=True)
class Halves:
    """Float16, or the bits of bfloat16."""

    data: str
    dtype: str = "float32"
    elements: int = 2

    @property
    def weight(self) -> str:
        return self.data

    def rate(self, gpu: Gpu) -> float:
        return gpu.half_products

    def value(self, element: Expr) -> Expr:
        return widen(element)

    def outside(self) -> Expr:
        return tirx.const(0, self.data)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return weight.astype(np.float16) if self.data == FLOAT16 else bfloat16.to_bits(weight)

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        return with_bias(call, total, dim)


@dataclass(frozen=True)
class Tf32:
    """Float32 that is rounded to TF32: weights where they are stored, data as it is loaded from shared memory."""

    data: str = "float32"
    weight: str = "float32"
    dtype: str = "float32"
    elements: int = 1

    def rate(self, gpu: Gpu) -> float:
        return gpu.half_products / 2

    def value(self, element: Expr) -> Expr:
        return element

    def outside(self) -> Expr:
        return tirx.const(0, "float32")

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return np.asarray(to_tf32(torch.from_numpy(np.ascontiguousarray(weight, np.float32))).numpy())

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        return with_bias(call, total, dim)


@dataclass(frozen=True)
class MatrixBytes:
    """Bytes of data, which may be unsigned, times signed ones of weights. ``zero`` is the data's zero point."""

    data: str
    zero: int
    weight: str = "int8"
    dtype: str = "int32"
    elements: int = 4

    def rate(self, gpu: Gpu) -> float:
        return gpu.byte_products

    def value(self, element: Expr) -> Expr:
        return tirx.Cast("int32", element)

    def outside(self) -> Expr:
        return tirx.const(self.zero, self.data)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return weight.astype(np.int8)

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        return Bytes(is_unsigned=False, zero=self.zero).corrected(call, total, dim)


@dataclass(frozen=True)
class PairOfBytes(MatrixBytes):
    """Bytes of data times others of data, of a type ``second`` with the zero point ``second_zero``."""

    second: str = "int8"
    second_zero: int = 0

    @property
    def zeros(self) -> tuple[int, int]:
        """The zero points of what the tensor cores multiply, the second factor being signed."""
        return self.zero, self.second_zero - (SIGN if self.second == "uint8" else 0)

    def outside_second(self) -> Expr:
        """What stands for an element outside of the second factor."""
        return tirx.const(self.second_zero, self.second)


def matrix_factor(call: Call, gpu: Gpu, products: int) -> MatrixFactor | None:
    """What the tensor cores of a GPU multiply for a layer with so many products in a sum; None if they do not."""
    if short := multiplied_dtype(call.node):
        return Halves(dtype_text(short)) if gpu.capability.multiplies(str(short).removeprefix("torch.")) else None
    if TF32 in call.node.meta:
        return Tf32() if call["input"].dtype == "float32" and gpu.capability.multiplies(TF32) else None
    if is_call(call.node, integer.matmul):
        able = products <= MOST_PAIRS and gpu.capability.multiplies("int8")
        zeros = call["zero_self"], call["zero_other"]
        return (
            PairOfBytes(call["self"].dtype, zeros[0], second=call["other"].dtype, second_zero=zeros[1])
            if able
            else None
        )
    is_integer = is_call(call.node, integer.conv2d, integer.linear)
    if is_integer and products <= MOST_TERMS and gpu.capability.multiplies("int8"):
        return MatrixBytes(call["input"].dtype, call["zero_point"])
    return None


def is_worth(gpu: Gpu, factor: MatrixFactor, cycles: float, size: Size) -> bool:
    """Whether a product that takes so many cycles is made by the tensor cores: always of halves, of TF32 and of bytes
    if what multiplies float32, or ``dp4a``, takes more."""
    if isinstance(factor, Halves):
        return True
    words = Bytes(is_unsigned=False, zero=0) if isinstance(factor, MatrixBytes) else SINGLE
    return cycles <= choose_tile(gpu, words, size, TILES).cycles(gpu, words, size)

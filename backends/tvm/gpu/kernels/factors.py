"""What products multiply: float32, or words of four bytes by ``dp4a``, summed in int32 with nothing lost.

``dp4a`` multiplies signed or unsigned bytes of data with signed ones of weights. What the sums have too much for the
zero point is known beforehand and goes with the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tvm import tirx

from lvc.backends.tvm.gpu.gpus import INTEGER_LANES, Gpu
from lvc.backends.tvm.gpu.launch import DP4A, DP4A_UNSIGNED, WORD_OF, fma
from lvc.backends.tvm.nest import Expr
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Array
from lvc.compiler.ir.graph import arguments

WORD = 4
MOST_TERMS = 100_000  # of a sum of products of bytes: 2**31 / 2**14 is 131,072


class Pace(Protocol):
    """How fast terms of so many ``elements`` are multiplied."""

    @property
    def elements(self) -> int: ...

    def rate(self, gpu: Gpu) -> float:
        """Products of elements that begin in a cycle of a multiprocessor."""
        ...

    def __hash__(self) -> int: ...


class Factor(Pace, Protocol):
    """``dtype`` is that of a term, and of sums."""

    @property
    def dtype(self) -> str: ...

    def term(self, first: Expr) -> Expr:
        """The term that begins with an element of the data."""
        ...

    def outside(self) -> Expr:
        """What stands for a term outside of the data."""
        ...

    def product(self, x: Expr, y: Expr, total: Expr) -> Expr:
        """A sum and the product of two terms."""
        ...

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Weights ``[..., elements of terms, columns]`` as terms."""
        ...

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        """Add the bias along a dimension, and what the sums lack."""
        ...


@dataclass(frozen=True)
class Single:
    """Float32."""

    dtype: str = "float32"
    elements: int = 1

    def rate(self, gpu: Gpu) -> float:
        return gpu.capability.lanes

    def term(self, first: Expr) -> Expr:
        return first

    def outside(self) -> Expr:
        return tirx.const(0, "float32")

    def product(self, x: Expr, y: Expr, total: Expr) -> Expr:
        return fma(x, y, total)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return weight.astype(np.float32)

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        return with_bias(call, total, dim)


@dataclass(frozen=True)
class Bytes:
    """Four bytes of data times four of weights. ``zero`` is the data's zero point."""

    is_unsigned: bool
    zero: int
    dtype: str = "int32"
    elements: int = WORD

    @classmethod
    def of(cls, call: Call) -> Bytes:
        """That of an integer layer."""
        return cls(call["input"].dtype == "uint8", call["zero_point"])

    def rate(self, gpu: Gpu) -> float:
        return WORD * INTEGER_LANES

    def term(self, first: Expr) -> Expr:
        return tirx.call_extern("int32", WORD_OF, first)

    def outside(self) -> Expr:
        each = np.full(WORD, self.zero, np.uint8 if self.is_unsigned else np.int8)
        return tirx.const(int(each.view(np.int32)[0]), "int32")

    def product(self, x: Expr, y: Expr, total: Expr) -> Expr:
        return tirx.call_extern("int32", DP4A_UNSIGNED if self.is_unsigned else DP4A, x, y, total)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        *lead, depth, columns = weight.shape
        quads = weight.astype(np.int8).reshape(*lead, depth // WORD, WORD, columns)
        return np.ascontiguousarray(quads.swapaxes(-1, -2)).view(np.int32)[..., 0]

    def corrected(self, call: Call, total: Array, dim: int) -> Array:
        values = torch.from_numpy(call["weight"].constant)
        excess = (-self.zero * values.int().flatten(1).sum(1)).to(torch.int32).numpy()
        name = arguments(call.node)["weight"].target
        each = call.scope.constant(f"{name} zero {self.zero}", excess)
        whole = Array(total.shape, total.dtype, lambda index: total.read(index) + each.read([index[dim]]))
        return with_bias(call, whole, dim)


SINGLE = Single()

"""Words of whole numbers: data of 8 bits times int8 weights, summed in int32 with nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import tirx

from lvc.backends.tvm.bfloat16 import like
from lvc.backends.tvm.kernels.nest import Buffer, Expr, load
from lvc.backends.tvm.kernels.words import Word
from lvc.backends.tvm.vector import Vector

_PAIR_DOT = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}


def centred(element: Expr, zero_point: int, dtype: str = "int32") -> Expr:
    """``q - zero_point`` of elements of 8 bits, in a wider type; by way of int32 if that is float32."""
    value = element.asobject() if hasattr(element, "asobject") else element
    lanes = value.ty.dtype.lanes

    def typed(name: str) -> str:
        return f"{name}x{lanes}" if lanes > 1 else name

    whole = "int32" if dtype == "float32" else dtype
    wide = tirx.Cast(typed(whole), value)
    if zero_point:
        zero = tirx.const(zero_point, whole)
        wide = wide - (tirx.Broadcast(zero, lanes) if lanes > 1 else zero)
    return wide if whole == dtype else tirx.Cast(typed(dtype), wide)


@dataclass(frozen=True)
class WholePair(Word):
    """A pair of 16-bit whole numbers, whose products ``vpmaddwd`` adds in 32 bits.

    Nothing can saturate: data becomes ``q - zero_point`` on its way in, of 9 bits, and weights have 8.
    """

    name: ClassVar[str] = "int16"
    element: ClassVar[str] = "int16"
    packed: ClassVar[str] = "int32"
    elements: ClassVar[int] = 2
    sums: ClassVar[str] = "int32"
    is_converted: ClassVar[bool] = True

    zero_point: int

    @property
    def nothing(self) -> int:
        return self.zero_point

    def factor(self, element: Expr) -> Expr:
        return centred(element, self.zero_point)

    def convert(self, value: Expr) -> Expr:
        return centred(value, self.zero_point, "int16")

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return tirx.reinterpret("int32", load(buffer, [*index[:-1], index[-1] * 2], 2))

    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return self.join([load(buffer, index)])

    def join(self, parts: Sequence[Expr]) -> Expr:
        first, *rest = (tirx.Cast("int32", part) for part in parts)
        low = first & like(0xFFFF, first)
        return low | rest[0] << like(16, first) if rest else low

    def value(self, word: Expr, place: Expr) -> Expr:
        return word << (16 - place * 16) >> 16

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        lanes = sums.ty.dtype.lanes
        pairs = (tirx.reinterpret(f"int16x{2 * lanes}", words) for words in (left, right))
        return sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", _PAIR_DOT[lanes], *pairs)

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        pairs = np.moveaxis(values.astype(np.int16), axis, 0)
        if len(pairs) % 2:
            pairs = np.concatenate([pairs, np.zeros_like(pairs[:1])])
        halves = np.ascontiguousarray(pairs).view(np.uint16).astype(np.uint32)
        words = np.moveaxis(halves[::2] | halves[1::2] << 16, 0, axis)
        return np.ascontiguousarray(words).view(np.int32)

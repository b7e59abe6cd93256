"""Dot-product operands of integers: data of 8 bits times int8 weights, summed in int32 with nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add, or_
from typing import ClassVar

import numpy as np
from tvm import tirx

from lvc.backends.tvm.bfloat16 import like
from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet, Pairs
from lvc.backends.tvm.cpu.kernels.dot_operands import DotOperand, StepCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Buffer, Expr, load


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
class IntegerQuad(DotOperand):
    """Four products of uint8 with int8, in one instruction where there is one. The sums are of ``q``, not of
    ``q - zero_point``: the data's zero is at an ``offset``.

    Without that instruction sums of two are made in 16 bits, and so many operands (``chain``) are summed there before
    they are widened; for the caller to prove that nothing saturates, by `lvc.compiler.ir.bounds`. Weights
    that do not allow it are masked: ``masked_chain`` of theirs are summed in 16 bits, with 0 none, not even pairs.
    """

    name: ClassVar[str] = "uint8"
    element: ClassVar[str] = "uint8"
    packed: ClassVar[str] = "int32"
    elements: ClassVar[int] = 4
    sums: ClassVar[str] = "int32"
    scratch_registers: ClassVar[int] = 3

    zero_point: int
    chain: int = 1
    masked_chain: int = 1

    @property
    def offset(self) -> int:
        """The zero point of the data as it is multiplied."""
        return self.zero_point

    @property
    def is_zero_at_edges(self) -> bool:
        return not self.offset

    @property
    def is_masked(self) -> bool:
        return self.chain != self.masked_chain

    @property
    def words_per_step(self) -> int:
        return max(self.chain, 1)

    @property
    def padding_value(self) -> int:
        return self.zero_point

    def inside(self) -> IntegerQuad:
        return replace(self, zero_point=0)

    def step_cost(self, vector: Vector) -> StepCost:
        isa = vector.isa
        if self.name in isa.dots:
            return StepCost.fused(vector, isa.splat_cycles)
        return StepCost(isa.chain_cycles[self.chain], 1)

    def factor(self, element: Expr) -> Expr:
        return centred(element, 0)

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return tirx.reinterpret("int32", load(buffer, [*index[:-1], index[-1] * 4], 4))

    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return self.join([load(buffer, index)])

    def join(self, parts: Sequence[Expr]) -> Expr:
        whole = [centred(part, 0) for part in parts]
        return reduce(or_, (part << like(8 * place, part) for place, part in enumerate(whole)))

    def value(self, word: Expr, place: Expr) -> Expr:
        return word << (24 - place * 8) >> 24

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        return self.add_products(vector, sums, [(left, right)])

    def add_products(
        self, vector: Vector, sums: Expr, factors: Sequence[tuple[Expr, Expr]], may_saturate: bool = False
    ) -> Expr:
        isa = vector.isa
        if self.name in isa.dots:
            return reduce(lambda total, pair: isa.dot(self.name, total, *pair), factors, sums)
        chain = self.masked_chain if may_saturate else self.chain
        if not chain:
            return reduce(lambda total, pair: total + _even_and_odd(isa, *pair), factors, sums)
        for first in range(0, len(factors), chain):
            pairs = reduce(add, (isa.sum_of_two(*pair) for pair in factors[first : first + chain]))
            sums = sums + isa.dot_of_two(pairs, tirx.Broadcast(tirx.const(1, "int16"), 2 * sums.ty.dtype.lanes))
        return sums

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return _packed(values.astype(np.int8), axis, 4)


@dataclass(frozen=True)
class SignedQuad(IntegerQuad):
    """Four products of signed bytes in one instruction: data is read as ``q - 128``, by turning its highest bits over,
    and the sums are of that."""

    name: ClassVar[str] = "int8"
    scratch_registers: ClassVar[int] = 0

    @property
    def offset(self) -> int:
        return self.zero_point - 128

    def factor(self, element: Expr) -> Expr:
        return centred(element, 128)

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return _with_opposite_signs(super().load(buffer, index))

    def join(self, parts: Sequence[Expr]) -> Expr:
        return _with_opposite_signs(super().join(parts))


@dataclass(frozen=True)
class TurnedQuad(SignedQuad):
    """The same for cores in order: the bits are turned over in a copy, so that one load brings the words of several
    scalars or steps, and each step takes its own out of their register."""

    element: ClassVar[str] = "int8"
    is_converted: ClassVar[bool] = True
    neighbours: ClassVar[int] = 2

    @property
    def converted_padding(self) -> int:
        return self.offset

    def step_cost(self, vector: Vector) -> StepCost:
        return StepCost.fused(vector)

    def convert(self, value: Expr) -> Expr:
        lanes = value.ty.dtype.lanes
        high = tirx.const(0x80, "uint8")
        turned = value ^ (tirx.Broadcast(high, lanes) if lanes > 1 else high)
        return tirx.reinterpret(f"int8x{lanes}" if lanes > 1 else "int8", turned)

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return IntegerQuad.load(self, buffer, index)

    def load_words(self, buffer: Buffer, index: Sequence[Expr], count: int = 1) -> Expr:
        value = load(buffer, [*index[:-1], index[-1] * 4], 4 * count)
        return tirx.reinterpret(f"int32x{count}" if count > 1 else "int32", value)

    def join(self, parts: Sequence[Expr]) -> Expr:
        return IntegerQuad.join(self, [tirx.Cast("int32", part) & 0xFF for part in parts])


@dataclass(frozen=True)
class IntegerPair(DotOperand):
    """A pair of 16-bit integers, whose products are added in 32 bits.

    Nothing can saturate: data becomes ``q - zero_point`` on its way in, of 9 bits, and weights have 8.
    """

    name: ClassVar[str] = "int16"
    element: ClassVar[str] = "int16"
    packed: ClassVar[str] = "int32"
    elements: ClassVar[int] = 2
    sums: ClassVar[str] = "int32"
    is_converted: ClassVar[bool] = True
    scratch_registers: ClassVar[int] = 1

    zero_point: int

    @property
    def padding_value(self) -> int:
        return self.zero_point

    def step_cost(self, vector: Vector) -> StepCost:
        pairs = self._pairs(vector)
        return StepCost(pairs.cycles, 1, pairs.splat)

    def registers(self, vector: Vector) -> int:
        return self._pairs(vector).registers

    def tile_registers(self, vector: Vector) -> int:
        return vector.registers

    def unroll(self, vector: Vector) -> int:
        return self._pairs(vector).unroll

    def _pairs(self, vector: Vector) -> Pairs:
        assert vector.isa.pairs is not None, vector.isa.name
        return vector.isa.pairs

    def factor(self, element: Expr) -> Expr:
        return centred(element, self.zero_point)

    def convert(self, value: Expr) -> Expr:
        return centred(value, self.zero_point, "int16")

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return tirx.reinterpret("int32", load(buffer, [*index[:-1], index[-1] * 2], 2))

    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return self.join([load(buffer, index)])

    def join(self, parts: Sequence[Expr]) -> Expr:
        first, *rest = (centred(part, 0) for part in parts)
        low = first & like(0xFFFF, first)
        return low | rest[0] << like(16, first) if rest else low

    def value(self, word: Expr, place: Expr) -> Expr:
        return word << (16 - place * 16) >> 16

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        return vector.isa.add_dot_of_two(sums, _halves(left), _halves(right))

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return _packed(values.astype(np.int16), axis, 2)


def _even_and_odd(isa: InstructionSet, weights: Expr, data: Expr) -> Expr:
    """The sums of four products of bytes by way of products in 32 bits: of the even bytes, then of the odd ones."""
    pairs, wide = _halves(weights), _halves(data)
    eight, byte = (tirx.Broadcast(tirx.const(number, "int16"), pairs.ty.dtype.lanes) for number in (8, 0xFF))
    even = isa.dot_of_two(pairs << eight >> eight, wide & byte)
    return even + isa.dot_of_two(pairs >> eight, wide >> eight & byte)


def _with_opposite_signs(words: Expr) -> Expr:
    """Four bytes less 128 each, the result signed."""
    return words ^ like(-0x7F7F7F80, words)


def _halves(words: Expr) -> Expr:
    return tirx.reinterpret(f"int16x{2 * words.ty.dtype.lanes}", words)


def _packed(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    """So many elements along an axis in each word of 32 bits, the first in the lowest bits."""
    rows = np.moveaxis(values, axis, -1)
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % count)])
    words = np.ascontiguousarray(rows).view(np.int32)  # little-endian, as the target is
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))

"""The one step of every reduction: each lane of the sums gains the dot product of two operands of 32 bits.

An operand is one float32, one float16, or as many elements of a shorter type as fill a 32-bit word. Packed weights are
such words; data has its elements one after the other along the reduction, and is read a word at a time. Kernels count
the reduction in words, so the loops around a step, and the knobs that shape them, are the same for every type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from lvc.backends.tvm.bfloat16 import BITS, like, to_bits, to_int32
from lvc.backends.tvm.cpu.kernels.fence import declared, fenced
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators, multiply_add
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import UNROLL, Buffer, Expr, Stmt, load
from lvc.backends.tvm.short_floats import is_short, widen

WORD_BYTES = 4

Factors = Callable[[int, int], Sequence[tuple[Expr, Expr]]]  # vector, scalar: neighbouring words of weights and data


@dataclass(frozen=True)
class StepCost:
    """Cycles that a step keeps the arithmetic units busy for each vector of sums, cycles after which its sums may take
    another one, and cycles from one scalar in all lanes to the next."""

    cycles: float
    latency: float
    splat: float = 0.0

    @classmethod
    def fused(cls, vector: Vector, splat: float = 0.0) -> StepCost:
        """That of an instruction that multiplies and adds."""
        return cls(1 / vector.machine.multiply_adds, vector.machine.latency, splat)


@dataclass(frozen=True)
class DotOperand(ABC):
    """``elements`` of a type that is called ``name`` and is ``element`` in memory; together they are one ``packed``.
    Their products are added to ``sums``; first, if it is set, to sums of the shorter type ``held`` in registers. Where
    ``is_converted``, data lies in memory in another type, and each task reads it by way of a copy."""

    name: ClassVar[str]
    element: ClassVar[str]
    packed: ClassVar[str]
    elements: ClassVar[int]
    sums: ClassVar[str] = "float32"
    held: ClassVar[str] = ""
    word_bytes: ClassVar[int] = WORD_BYTES
    is_converted: ClassVar[bool] = False
    scratch_registers: ClassVar[int] = 0  # registers that a step needs for itself
    neighbours: ClassVar[int] = 1  # columns of an image that lie side by side in copies, whatever the stride
    rows: ClassVar[int] = 1  # neighbouring scalars that a step takes together, and as many words of each

    @property
    def depth(self) -> int:
        """Elements of a scalar that one step takes."""
        return self.rows * self.elements

    def step_cost(self, vector: Vector) -> StepCost:
        """The time that a step takes."""
        return StepCost.fused(vector)

    def whole(self, scalars: int) -> int:
        """So many scalars, or as many more as steps take with them."""
        return -(-scalars // self.rows) * self.rows

    @property
    def is_copied(self) -> bool:
        """Whether kernels read data by way of a copy."""
        return self.is_converted or self.rows > 1

    def accumulators(self, vectors: int, scalars: int, lanes: int) -> Accumulators:
        """The sums of a tile."""
        return Accumulators.make(vectors, scalars, lanes, self.sums, self.rows, held=self.held)

    @property
    def words_per_step(self) -> int:
        """Neighbouring words that one step may take."""
        return 1

    def registers(self, vector: Vector) -> int:
        """Registers that each operand of a step takes."""
        return self.words_per_step

    def tile_registers(self, vector: Vector) -> int:
        """Registers that a tile and what its steps read may take."""
        return vector.isa.fenced or vector.registers

    def unroll(self, vector: Vector) -> int:
        """Steps of a reduction in one turn of its loop."""
        return UNROLL

    @property
    def is_masked(self) -> bool:
        """Whether the usual step could saturate for some weights, and a mask tells which."""
        return False

    @property
    def padding_value(self) -> int:
        """What stands for zero in the data."""
        return 0

    def inside(self) -> DotOperand:
        """The same operand for data with nothing outside: kernels that would differ in what stands for zero there alone
        are one."""
        return self

    @property
    def converted_padding(self) -> int:
        """What stands for zero among the elements of words."""
        return 0 if self.is_converted else self.padding_value

    @property
    def is_zero_at_edges(self) -> bool:
        """Whether what stands for zero adds nothing to the sums."""
        return not self.converted_padding

    def factor(self, element: Expr) -> Expr:
        """An element of the data as a number of the type of the sums, in TE."""
        return widened(element)

    def rounded(self, vector: Vector, value: Expr) -> Expr:
        """A vector of float32 as elements of words. Code with it must be `around` something."""
        assert self.element == "float32", self.name
        return value

    def convert(self, value: Expr) -> Expr:
        """Elements as they lie in memory, as elements of words."""
        return value

    def count(self, elements: int) -> int:
        """Words that so many elements fill."""
        return -(-elements // self.elements)

    def weight(self, packed: Any, place: tuple[Expr, ...]) -> Expr:
        """An element of packed words ``[.., words, columns]``, in TE; ``place`` counts elements in place of words."""
        if self.elements == 1:
            return packed[place]
        *outer, element, column = place
        word = packed[(*outer, tirx.floordiv(element, self.elements), column)]
        return self.value(word, tirx.floormod(element, self.elements))

    @abstractmethod
    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        """Read a word of a row of elements; the last index counts words."""

    def load_words(self, buffer: Buffer, index: Sequence[Expr], count: int = 1) -> Expr:
        """Read neighbouring words; the last index counts words."""
        assert count == 1 or self.elements == 1, self.name
        return self.load(buffer, index) if count == 1 else load(buffer, index, count)

    def load_rows(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        """Read what one step takes of as many scalars as it takes together, side by side; the last index counts
        elements."""
        return tirx.reinterpret(f"int32x{self.rows**2}", load(buffer, index, self.rows * self.depth))

    @abstractmethod
    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        """Read a word of which only the first element is in the row; the last index counts elements."""

    @abstractmethod
    def join(self, parts: Sequence[Expr]) -> Expr:
        """Make words of their elements, vectors or scalars; zeros in place of those that are missing at the end."""

    @abstractmethod
    def value(self, word: Expr, place: Expr) -> Expr:
        """One element of a word as a number of the type of the sums."""

    @abstractmethod
    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        """One step, on vectors of words with a lane for each sum."""

    def add_products(
        self, vector: Vector, sums: Expr, factors: Sequence[tuple[Expr, Expr]], may_saturate: bool = False
    ) -> Expr:
        """One step on neighbouring words; ``may_saturate`` where the usual step could."""
        for left, right in factors:
            sums = self.add_product(vector, sums, left, right)
        return sums

    def step(self, vector: Vector, sums: Accumulators, factors: Factors, masked: Expr = None) -> Stmt:
        """One step for all sums of a tile; where only a mask tells whether the usual one could saturate, by that."""

        def add(may_saturate: bool) -> Stmt:
            step = sums.update(lambda total, v, s: self.add_products(vector, total, factors(v, s), may_saturate))
            return fenced(step, sums, vector)

        return add(False) if masked is None else tirx.IfThenElse(masked, add(True), add(False))

    def around(self, nest: Stmt, vector: Vector) -> Stmt:
        """A nest, with what its steps need around it."""
        return declared(nest, vector, vector.isa.declarations(self.name) if self.name in vector.isa.dots else "")

    @abstractmethod
    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Put the elements along an axis into words, zeros after the last."""


@dataclass(frozen=True)
class _Float32(DotOperand):
    name: ClassVar[str] = "float32"
    element: ClassVar[str] = "float32"
    packed: ClassVar[str] = "float32"
    elements: ClassVar[int] = 1

    def step_cost(self, vector: Vector) -> StepCost:
        fused = StepCost.fused(vector)
        return replace(fused, cycles=fused.cycles * vector.isa.float_registers)

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return load(buffer, index)

    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return load(buffer, index)

    def join(self, parts: Sequence[Expr]) -> Expr:
        return parts[0]

    def value(self, word: Expr, place: Expr) -> Expr:
        return word

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        return multiply_add(sums, left, right)

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return values


@dataclass(frozen=True)
class _Float16(_Float32):
    """Products and sums in half precision: of at most `FLOAT16_TERMS`, whose sum is added to one in float32.

    XNNPACK's kernels sum whole reductions in half precision; then the error grows with the reduction, and so does what
    may overflow on the way. In parts (nntrainer has kernels for parts of several lengths) both are bounded, for a few
    instructions in a hundred.
    """

    name: ClassVar[str] = "float16"
    element: ClassVar[str] = "float16"
    packed: ClassVar[str] = "float16"
    held: ClassVar[str] = "float16"
    word_bytes: ClassVar[int] = 2

    def step_cost(self, vector: Vector) -> StepCost:
        return StepCost.fused(vector)

    def tile_registers(self, vector: Vector) -> int:
        return super().tile_registers(vector) * vector.isa.float_registers

    def weight(self, packed: Any, place: tuple[Expr, ...]) -> Expr:
        return widened(packed[place])

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return values.astype(np.float16)


@dataclass(frozen=True)
class Bfloat16Pair(DotOperand):
    """Products as an instruction adds them: that of the second elements first, each rounded to float32."""

    name: ClassVar[str] = "bfloat16"
    element: ClassVar[str] = BITS
    packed: ClassVar[str] = "int32"
    elements: ClassVar[int] = 2

    def rounded(self, vector: Vector, value: Expr) -> Expr:
        return vector.isa.bfloat16_of(value)

    def load(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return tirx.reinterpret("int32", load(buffer, [*index[:-1], index[-1] * 2], 2))

    def load_last(self, buffer: Buffer, index: Sequence[Expr]) -> Expr:
        return to_int32(load(buffer, index))

    def join(self, parts: Sequence[Expr]) -> Expr:
        first, *rest = map(to_int32, parts)
        return first | rest[0] << like(16, first) if rest else first

    def value(self, word: Expr, place: Expr) -> Expr:
        half = word >> (like(16 * place, word) if isinstance(place, int) else place * 16)
        return _float(half << like(16, half))

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        if self.name in vector.isa.dots:
            return vector.isa.dot(self.name, sums, left, right)
        return sums + _second(left) * _second(right) + _first(left) * _first(right)

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        bits = np.moveaxis(to_bits(values).astype(np.uint32), axis, 0)
        if len(bits) % 2:
            bits = np.concatenate([bits, np.zeros_like(bits[:1])])
        words = np.moveaxis(bits[::2] | bits[1::2] << 16, 0, axis)
        return np.ascontiguousarray(words).view(np.int32)


FLOAT32: DotOperand = _Float32()
FLOAT16: DotOperand = _Float16()
BFLOAT16: DotOperand = Bfloat16Pair()


def _first(words: Expr) -> Expr:
    return _float(words << like(16, words))


def _second(words: Expr) -> Expr:
    return _float(words & like(-1 << 16, words))


def _float(words: Expr) -> Expr:
    return tirx.reinterpret(str(words.ty.dtype).replace("int", "float"), words)


def widened(element: Expr) -> Expr:
    """An element of any type as float32, for kernels that multiply single ones."""
    value = element.asobject() if hasattr(element, "asobject") else element
    return widen(value) if is_short(str(value.ty.dtype)) else element

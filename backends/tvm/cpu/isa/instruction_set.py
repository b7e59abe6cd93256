"""What an instruction set has for vectors: the one place where kernels ask how to multiply and add, and what it costs.

Operands of a dot product are 32 bits wide: one float32, or several elements of a shorter type. An instruction set may
have an instruction that adds the products of all their elements to the sums, or take several steps; what it cannot do
it refuses by name when a model is lowered, since a code generator that finds no instruction ends the process.

Nothing heavy is imported: targets are spoken of where no code is made.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

from lvc.backends.tvm.cpu.isa.code import round_to_bfloat16
from lvc.compiler.errors import CompileError

Expr = Any  # a TIR expression; TVM's own types are not annotated
_NONE: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Pairs:
    """Steps of two products of 16 bits in each lane: the cycles of one, those from one word in all lanes to the next,
    the registers that an operand takes, and the steps in one turn of a loop for which LLVM does not spill."""

    cycles: float
    splat: float = 0.0
    registers: int = 1
    unroll: int = 8


@dataclass(frozen=True)
class InstructionSet(ABC):
    """Vectors of ``lanes`` times 32 bits and ``registers`` for them, on processors that have ``feature``; of its
    optional parts those that multiply and add the types in ``dots``, the better ones first, and those that multiply
    small matrices of the types in ``matrices``.

    ``chain_cycles`` are the cycles of a step of four products of bytes, for each number of operands whose products are
    summed in 16 bits before they are widened, 0 where not even pairs are; empty without such a way. ``pairs`` is
    how products of 16 bits are made; None without them. ``splat_cycles`` pass from one word of bytes in all lanes to
    the next, where that is more than its load.
    """

    name: ClassVar[str]
    feature: ClassVar[str]
    lanes: ClassVar[int]
    registers: ClassVar[int]
    fenced: ClassVar[int] = 0  # registers for a tile where a fence ends each step, for LLVM; 0 without fences
    float_registers: ClassVar[int] = 1  # that a vector of float32 takes
    dot_features: ClassVar[Mapping[str, str]] = _NONE  # type of the elements: the part that multiplies and adds them
    matrix_features: ClassVar[Mapping[str, str]] = _NONE  # as dot_features, of those that multiply matrices
    chain_cycles: ClassVar[Mapping[int, float]] = _NONE
    pairs: ClassVar[Pairs | None] = None
    splat_cycles: ClassVar[float] = 0.0
    seven_bits: ClassVar[str] = ""  # why weights of 7 bits are multiplied faster than those of 8, and what to do
    narrows: ClassVar[bool] = False  # whether `dot` takes half of the lanes, and a quarter, as well
    prefetches: ClassVar[bool] = False  # whether weights are fetched ahead, where it was measured to pay
    attributes: ClassVar[tuple[str, ...]] = ()  # for LLVM, so that loops that it makes vectors of have as many lanes

    dots: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()

    @classmethod
    def of(cls, features: Collection[str]) -> Self:
        """With those of its parts that a processor has."""
        parts = (cls.dot_features, cls.matrix_features)
        return cls(*(tuple(element for element, feature in part.items() if feature in features) for part in parts))

    def dot(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        """Sums and the products of all elements of two operands, of a type in ``dots``. Of ``uint8`` the left are
        signed and the right are not, of ``int8`` all are."""
        raise self.lacks(element)

    def matrix_product(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        """Sums ``[2, 2]`` and the products of the rows of two matrices of two words in a row, of a type in
        ``matrices``: those of the right along the first dimension, those of the left along the second. Signs are as of
        `dot`."""
        raise self.lacks(element)

    @property
    def rounds_bfloat16(self) -> bool:
        """Whether it has an instruction that rounds a vector of float32 to bfloat16."""
        return False

    def bfloat16_of(self, value: Expr) -> Expr:
        """The bits of a vector of float32 rounded to bfloat16."""
        if not self.rounds_bfloat16:
            raise self.lacks("bfloat16")
        return round_to_bfloat16(value)

    def declarations(self, element: str) -> str:
        """What LLVM must be told before steps on a type, in its language."""
        return ""

    def sum_of_two(self, left: Expr, right: Expr) -> Expr:
        """The products of signed bytes with unsigned ones, summed by two in 16 bits; undefined where that overflows."""
        raise self.lacks("int8")

    def dot_of_two(self, left: Expr, right: Expr) -> Expr:
        """The products of numbers of 16 bits, summed by two in 32 bits."""
        raise self.lacks("int16")

    def add_dot_of_two(self, sums: Expr, left: Expr, right: Expr) -> Expr:
        """Sums and the products of numbers of 16 bits, summed by two in 32 bits."""
        return sums + self.dot_of_two(left, right)

    def lacks(self, element: str, user: str = "") -> CompileError:
        """The error for ``user``, or whoever else asks for a step that there is not."""
        needed = f"{user} needs it, and " if user else ""
        return CompileError(
            f"no dot product for {element} on this target yet",
            why=f"{needed}lvc knows no instruction of {self.name} that multiplies and adds {element}",
            help="compile the model in float32, or for another target",
        )

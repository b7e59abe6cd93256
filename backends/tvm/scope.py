"""Arrays as functions of their index, and the scope in which one kernel is written down.

An `Array` says which TE expression stands at a logical index, so an operator has one definition, whatever the layouts
of its operands and its result; movement operators are nothing but maps of indices. Only reductions make stages: loop
nests of their own with a buffer between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tvm_ffi
from torch.fx import Node
from tvm import ir, sym, te, tirx

from lvc.backends.tvm.bfloat16 import BITS
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.program import ScheduleFunction
from lvc.compiler.ir.spec import TensorSpec

Expr = Any  # a TIR expression; TVM's own types are not annotated
Index = Sequence[Expr]

VECTOR_PADDING = 16  # constant vectors are stored with zeros up to a multiple of the widest block


def dtype_text(dtype: torch.dtype) -> str:
    """The name that kernels, TVM and numpy have for an element type."""
    return BITS if dtype is torch.bfloat16 else str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Array:
    """A tensor inside a kernel. ``read`` gives the expression at a logical index within ``shape``.

    ``constant`` holds the values where they are known at build time, ``codes`` how they are stored if in few bits.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[Index], Expr]
    constant: np.ndarray | None = None
    codes: Codes | None = None


@dataclass(frozen=True)
class Codes:
    """A weight in few bits: ``values[code] * scale``, where ``code`` and ``scale`` have the shape of the weight."""

    code: np.ndarray
    scale: np.ndarray
    values: np.ndarray
    bits: int


@dataclass(frozen=True)
class Constant:
    """A stored tensor as one kernel wants it; ``key`` is equal for equal bytes."""

    key: str
    pack: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """A constant that is too large to be stored: ``function``, scheduled by ``schedule``, makes it of ``sources``,
    which are stored or prepared, when the model is loaded. ``key`` is equal for equal bytes."""

    key: str
    sources: tuple[Parameter, ...]
    function: Any
    schedule: ScheduleFunction


@dataclass(frozen=True)
class Shared:
    """Memory that all threads of one kernel share while it runs."""


@dataclass(frozen=True)
class Parameter:
    """One argument of a kernel: the value of a node, a constant, or shared memory."""

    tensor: Any
    source: Node | Constant | Prepared | Shared


Number = Callable[[], Expr]

_IN_CODE = (0, 1)  # to add nothing or to multiply by one takes no code


class Numbers:
    """Numbers of 32 bits that a kernel is called with, so that kernels that differ in nothing else are one.

    Those that are taken before one of them is used are one parameter; ``parameter`` makes it of such words.
    """

    def __init__(self, parameter: Callable[[np.ndarray], Any]) -> None:
        self._parameter = parameter
        self._words: list[int] = []
        self._tensor: list[Any] = []

    def take(self, value: float, dtype: str) -> Number:
        """The number of a type that is nearest to a value."""
        number = np.array(value, dtype)
        if number in _IN_CODE:
            return literal(value, dtype)
        if self._tensor:
            self._words, self._tensor = [], []
        words, tensor, place = self._words, self._tensor, len(self._words)
        words.append(int(number.view(np.int32)))

        def read() -> Expr:
            if not tensor:
                tensor.append(self._parameter(np.array(words, np.int32)))
            word = tensor[0][place].asobject()
            return word if dtype == "int32" else tirx.reinterpret(dtype, word)

        return read


def literal(value: float, dtype: str) -> Number:
    """A number that stands in the code."""
    return lambda: scalar_of(value, dtype)


@dataclass
class Scope:
    """The parameters and stages of one kernel. ``analyzer`` knows the range of every axis that was made here; ``lanes``
    is the width of a vector."""

    lanes: int = 8
    analyzer: Any = field(default_factory=sym.Analyzer)
    parameters: list[Parameter] = field(default_factory=list)
    stages: int = 0
    has_lookups: bool = False
    numbers: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = Numbers(self._words)

    def value(self, node: Node, spec: TensorSpec, layout: Layout) -> Array:
        """Read the value of a node, made by another kernel."""
        return self.leaf(self.tensor_of(node, spec, layout), spec.shape, layout)

    def constant(self, key: str, values: np.ndarray) -> Array:
        """Read a stored tensor; it becomes a parameter at its first use."""
        leaf: list[Array] = []

        def read(index: Index) -> Expr:
            if not leaf:
                leaf.append(self._constant_leaf(key, values))
            return leaf[0].read(index)

        if values.size == 1:
            scalar = factor_of(values.reshape(-1)[0].item(), str(values.dtype))
            return Array(values.shape, str(values.dtype), lambda _: scalar, values)
        return Array(values.shape, str(values.dtype), read, values)

    def parameter(self, shape: Sequence[int], dtype: str, source: Constant | Prepared | Shared, name: str = "") -> Any:
        """A parameter for a stored tensor in a form of the kernel's own, a constant that is made when the model is
        loaded, or memory to work in. What the computation does not read has a name by which the schedule finds it."""
        tensor = te.placeholder(tuple(shape), dtype, name or f"w{len(self.parameters)}")
        self.parameters.append(Parameter(tensor, source))
        return tensor

    def _words(self, words: np.ndarray) -> Any:
        return self.parameter(words.shape, "int32", Constant(f"numbers {words.tolist()}", lambda: words))

    def _constant_leaf(self, key: str, values: np.ndarray) -> Array:
        if values.size != max(values.shape):
            stored = Constant(key, lambda: np.ascontiguousarray(values))
            tensor = self.parameter(values.shape, str(values.dtype), stored)
            return self.leaf(tensor, values.shape, PLAIN)
        axis = values.shape.index(values.size)
        size = -(-values.size // VECTOR_PADDING) * VECTOR_PADDING

        def pack() -> np.ndarray:
            return np.pad(values.reshape(-1), (0, size - values.size))

        tensor = self.parameter((size,), str(values.dtype), Constant(f"{key} padded", pack))
        whole = self.leaf(tensor, (size,), PLAIN)
        return Array(values.shape, str(values.dtype), lambda index: whole.read((index[axis],)))

    def tensor_of(self, node: Node, spec: TensorSpec, layout: Layout, shape: Sequence[int] | None = None) -> Any:
        """The TE tensor of a node's value, one parameter for each shape in memory that is asked for."""
        wanted = tuple(shape or layout.physical(spec.shape)) or (1,)
        for known in self.parameters:
            if known.source is node and tuple(int(size) for size in known.tensor.shape) == wanted:
                return known.tensor
        tensor = te.placeholder(wanted, dtype_text(spec.dtype), f"x{len(self.parameters)}")
        self.parameters.append(Parameter(tensor, node))
        return tensor

    def leaf(self, tensor: Any, shape: Sequence[int], layout: Layout) -> Array:
        """Read a TE tensor that lies in a layout. An index that may lie outside is moved to the nearest inside."""
        bounds = layout.bounds(shape)

        def read(index: Index) -> Expr:
            if not shape:
                return tensor[0].asobject()
            inside = [self.clamp(i, bound) for i, bound in zip(index, bounds, strict=True)]
            return tensor[tuple(self.simplify(i) for i in layout.to_physical(inside))].asobject()

        return Array(tuple(shape), str(tensor.dtype), read)

    def clamp(self, index: Expr, bound: int) -> Expr:
        """Keep an index within ``[0, bound)``; no code where it provably is."""
        index = self.simplify(index)
        if not self.analyzer.can_prove(index < bound):
            index = tirx.min(index, bound - 1)
        if not self.analyzer.can_prove(index >= 0):
            index = tirx.max(index, 0)
        return index

    def simplify(self, index: Expr) -> Expr:
        return self.analyzer.simplify(index) if isinstance(index, ir.Expr) else index

    def lookup(self, position: Expr, size: int, read: Callable[[Expr], Expr]) -> Expr:
        """Read at an index that is data and lies in ``[0, size)``, of which the analyzer knows no more than that."""
        self.has_lookups = True
        variable = tirx.Var("at", "int32")
        self.analyzer.bind(variable, ir.Range(0, size))

        def substitute(node: Any, _: Any) -> Any:
            return position if node.same_as(variable) else node

        return tvm_ffi.structural_mutate(read(variable), [(tirx.Var, substitute)])

    def axis(self, extent: int, name: str = "k") -> Any:
        """A reduction axis."""
        axis = te.reduce_axis((0, extent), name)
        self.analyzer.bind(axis.var, ir.Range(0, extent))
        return axis

    def tensor(self, shape: Sequence[int], body: Callable[[Index], Expr], name: str = "") -> Any:
        """Compute a TE tensor of a physical shape, element by element."""
        self.stages += 1

        def bound(*axes: Any) -> Expr:
            for axis, extent in zip(axes, shape, strict=True):
                self.analyzer.bind(axis, ir.Range(0, extent))
            return body(axes)

        return te.compute(tuple(shape), bound, name=name or f"stage{self.stages}")

    def stage(
        self, shape: Sequence[int], body: Callable[[Index], Expr], name: str = "", layout: Layout = PLAIN
    ) -> Array:
        """Compute an array into a buffer of its own; ``body`` takes a logical index."""
        tensor = self.tensor(layout.physical(shape) or (1,), lambda axes: body(layout.to_logical(axes)), name)
        return self.leaf(tensor, shape, layout)


def dtype_of(value: Expr) -> str:
    """The type of an expression."""
    return str(value.ty.dtype)


def scalar_of(value: float | int | bool, dtype: str) -> Expr:
    """A number as an expression."""
    if dtype == "bool":
        return tirx.const(bool(value), "bool")
    if "int" in dtype:
        bits = int(dtype.rpartition("int")[2])
        return tirx.const(int(value) % (1 << bits) if "uint" in dtype else int(value), dtype)
    if math.isinf(value) or abs(value) > 3.4e38:
        limit = tirx.infinity(dtype) if math.isinf(value) else tirx.max_value(dtype)
        return limit if value > 0 else -limit
    return tirx.const(float(value), dtype)


def factor_of(value: float | int | bool, dtype: str) -> Expr:
    """A number that is multiplied with or divided by. TVM takes 0 times anything for 0 and refuses to divide by it, so
    that is no number to it: of infinity and NaN it makes NaN."""
    number = scalar_of(value, dtype)
    if "float" not in dtype or value != 0:
        return number
    return tirx.call_llvm_pure_intrin(dtype, "llvm.arithmetic.fence", number)


def let(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Compute a value once and use it several times."""
    if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
        return body(value)
    variable = tirx.Var("v", dtype_of(value))
    return tirx.Let(variable, value, body(variable))

"""How an integer layer multiplies: which operands its weights allow, and what the sums of those lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch._ops import OpOverload
from tvm import te

from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, FLOAT16, FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerPair, IntegerQuad, SignedQuad, TurnedQuad
from lvc.backends.tvm.cpu.kernels.integer_storage import narrowed, narrowed_shape, stored_bits, widen_function
from lvc.backends.tvm.cpu.kernels.matrix_operands import BFLOAT16_MATRIX, QuadMatrix
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import AsWritten
from lvc.backends.tvm.scope import Array, Constant, Parameter, Prepared
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.bounds import EXACT_FLOAT32, INT16, INT32, DataRange, group_bounds, sum_bound
from lvc.compiler.ir.graph import arguments, is_call, origin, spec
from lvc.compiler.ir.operators import integer

Pack = Callable[[DotOperand], np.ndarray]

_BYTES = DataRange.of(torch.uint8, 0)
_SHORT: dict[torch.dtype | None, DotOperand] = {torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_ELEMENTS: dict[type[DotOperand], str] = {
    IntegerQuad: "int8",
    SignedQuad: "int8",
    TurnedQuad: "int8",
    QuadMatrix: "int8",
    IntegerPair: "int16",
}  # of which packed weights are made


def is_integer_layer(call: Call) -> bool:
    """Whether a call is an integer layer."""
    return is_call(call.node, integer.conv2d, integer.linear)


def computes(call: Call, single: OpOverload, whole: OpOverload) -> bool:
    """Whether a call is of one operator in single precision, or of the other in integers."""
    return is_call(call.node, whole) or (is_call(call.node, single) and call.dtype == "float32")


def dot_operand(call: Call, vector: Vector, pack: Pack | None = None) -> DotOperand:
    """What the steps of a contraction multiply; for an integer layer, what its weights allow, which ``pack`` gives as
    its kernel would read them."""
    if is_integer_layer(call):
        assert pack is not None
        return choose_operand(call, vector, pack)
    return _SHORT.get(multiplied_dtype(call.node), FLOAT32)


def matrix_operand(operand: DotOperand, vector: Vector) -> DotOperand | None:
    """The operand of products of matrices that does what another one does; None where there is none."""
    matrices = vector.isa.matrices
    if isinstance(operand, IntegerQuad) and QuadMatrix.name in matrices:
        return QuadMatrix(operand.zero_point)
    return BFLOAT16_MATRIX if operand == BFLOAT16 and BFLOAT16.name in matrices else None


def choose_operand(call: Call, vector: Vector, pack: Pack) -> DotOperand:
    """Quadruples of uint8 where 32 bits hold their sums too, and there is an instruction for it or the weights let most
    steps sum in 16 bits what provably fits there; else pairs.

    ``pack`` gives the weights as the kernel would read them: ``[.., words, lanes]``.
    """
    quad, isa = IntegerQuad(call["zero_point"]), vector.isa
    if is_call(call.node, integer.linear) and call["input"].shape[-1] % quad.elements:
        return pairs_for(call, vector, quad.zero_point)
    if call["input"].dtype != "uint8" or sum_bound(torch.from_numpy(call["weight"].constant), _BYTES) > INT32:
        return pairs_for(call, vector, quad.zero_point)
    signed = TurnedQuad if vector.machine.in_order else SignedQuad
    whole = {known.name: known for known in (quad, signed(quad.zero_point))}
    if one := next((whole[element] for element in isa.dots if element in whole), None):
        return one
    pairs = pairs_for(call, vector, quad.zero_point)
    cycles = quad.elements // pairs.elements * pairs.step_cost(vector).cycles
    return min([(cycles, pairs), *_ways(quad, pack(quad), isa.chain_cycles)], key=lambda way: way[0])[1]


def pairs_for(call: Call, vector: Vector, zero_point: int) -> IntegerPair:
    """Pairs, which every call may take; `CompileError` where the target cannot multiply them."""
    if vector.isa.pairs is None:
        raise vector.isa.lacks("int8", f"{call.node.name} (from {origin(call.node)})")
    return IntegerPair(zero_point)


def _ways(operand: IntegerQuad, packed: np.ndarray, cycles: Mapping[int, float]) -> Iterator[tuple[float, IntegerQuad]]:
    """Quadruples with steps that do not saturate, each with its cycles per operand."""
    if not cycles:
        return
    alone = float(saturating_steps(packed, 1).mean())
    yield _mean(cycles[1], cycles[0], alone), replace(operand, masked_chain=0 if alone else 1)
    if packed.shape[-2] % 2 == 0:
        share, rest = float(saturating_steps(packed, 2).mean()), 0 if alone else 1
        usual = _mean(cycles[2], cycles[rest], share)
        yield usual, replace(operand, chain=2, masked_chain=rest if share else 2)


def _mean(usual: float, masked: float, share: float) -> float:
    """Cycles where a step does for two vectors, one of which suffices to mask it."""
    both = (1 - share) ** 2
    return usual * both + masked * (1 - both)


def saturating_steps(packed: np.ndarray, chain: int) -> np.ndarray:
    """Which steps of so many words, ``[.., steps]`` for packed weights ``[.., words, lanes]``, could leave 16 bits."""
    *outer, words, lanes = packed.shape
    pairs = torch.from_numpy(packed.view(np.int8)).reshape(*outer, words // chain, chain, lanes, 2, 2)
    summed = pairs.movedim(-4, -2).flatten(-2)
    return np.asarray((group_bounds(summed, _BYTES) > INT16).flatten(-2).any(-1).numpy())


def saturation_mask(operand: DotOperand, packed: np.ndarray) -> np.ndarray:
    """The saturation mask of packed weights ``[out blocks, .., words, lanes]``: ``[out blocks, steps]``."""
    assert isinstance(operand, IntegerQuad)
    return saturating_steps(packed, operand.chain).reshape(len(packed), -1).astype(np.uint8)


def widened_weight(
    call: Call, key: str, operand: DotOperand, shape: tuple[int, ...], pack: Callable[[], np.ndarray]
) -> Prepared | None:
    """Packed weights of a shape that the file holds in fewer bits; None if they are stored as they are."""
    if not is_integer_layer(call):
        return None
    element, bits = _ELEMENTS.get(type(operand), "float32"), stored_bits(call["weight"].constant)
    if element == "int8" and bits == 8:
        return None
    narrow = Constant(f"{key} in {bits} bits", lambda: narrowed(pack(), element, bits))
    size = narrowed_shape(shape, np.dtype(element).itemsize, bits)
    source = Parameter(te.placeholder(size, "int8", "stored"), narrow)
    return Prepared(f"{key} widened", (source,), widen_function(shape, element, bits), AsWritten())


def with_correction(call: Call, total: Array, operand: DotOperand, dim: int) -> Array:
    """Add the bias along a dimension, and what sums of ``q`` have too much for being of ``q - zero_point``."""
    if not isinstance(operand, IntegerQuad) or not operand.offset:
        return with_bias(call, total, dim)
    weight = call["weight"].constant
    lacking = -operand.offset * weight.astype(np.int32).sum(axis=tuple(range(1, weight.ndim)), dtype=np.int32)
    name = arguments(call.node)["weight"].target
    key, bias = f"{name} zero {operand.offset}", call["bias"]
    if bias is not None and bias.constant is None:
        return with_bias(call, _plus(total, call.scope.constant(key, lacking), dim), dim)
    if bias is not None:
        key, lacking = f"{key} and {arguments(call.node)['bias'].target}", lacking + bias.constant
    return _plus(total, call.scope.constant(key, lacking), dim)


def _plus(total: Array, each: Array, dim: int) -> Array:
    return Array(total.shape, total.dtype, lambda index: total.read(index) + each.read([index[dim]]))


def is_exact_in_float32(call: Call) -> bool:
    """Whether the products of an integer convolution sum up exactly in single precision; true of all others."""
    if not is_integer_layer(call):
        return True
    data = DataRange.of(spec(arguments(call.node)["input"]).dtype, call["zero_point"])
    return sum_bound(torch.from_numpy(call["weight"].constant), data) <= EXACT_FLOAT32

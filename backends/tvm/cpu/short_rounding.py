"""Rounding to bfloat16 by one instruction, where a processor has it, in place of the integer arithmetic that it is in
kernels for any processor.

A group's end is written lane by lane, in TIR that knows no processor (see `bfloat16.narrow`). Once TVM has made vectors
of it, `round_by_instruction` finds that arithmetic again. The instruction takes numbers below the normal ones, under
1.2e-38, for zero; else it rounds alike.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import prim

from lvc.backends.tvm.bfloat16 import BITS, rounded_bits
from lvc.backends.tvm.cpu.isa.code import round_to_bfloat16, rounding_to_bfloat16
from lvc.backends.tvm.cpu.kernels.fence import imported
from lvc.backends.tvm.nest import Expr

ROUNDED_LANES = "lvc.rounded_lanes"
"""The attribute of a function that says how many numbers an instruction rounds; it has none where there is none."""


def round_by_instruction(function: Any, module: Any, context: Any) -> Any:
    """Let vectors be rounded by the instruction of the processor."""
    lanes, found = function.attrs.get(ROUNDED_LANES), False

    def rewrite(cast: Any, mutator: Any) -> Any:
        nonlocal found
        cast = mutator.default_mutate(cast)
        value = _rounded(cast, int(lanes))
        found |= value is not None
        return cast if value is None else round_to_bfloat16(value)

    if lanes is None:
        return function
    body = tvm_ffi.structural_mutate(function.body, [(tirx.Cast, rewrite)])
    return function.with_body(imported(body, rounding_to_bfloat16(int(lanes)))) if found else function


def _rounded(cast: Any, lanes: int) -> Expr | None:
    """The vector of float32 that an expression rounds to bfloat16; None if it does something else."""
    if str(cast.ty.dtype) != f"{BITS}x{lanes}" or not isinstance(cast.value, prim.RShift):
        return None
    choice = cast.value.a
    if not isinstance(choice, tirx.Select) or not isinstance(choice.condition, tirx.LE):
        return None
    value = choice.condition.a
    bits = getattr(value, "args", [None])[0]
    if bits is None or not tvm_ffi.structural_equal(cast, rounded_bits(bits)):
        return None
    return value

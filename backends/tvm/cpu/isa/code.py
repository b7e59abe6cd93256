"""TIR of single instructions, by LLVM's names."""

from __future__ import annotations

from typing import Any

Expr = Any

_ROUND = "lvc_round_bf16"


def intrinsic(dtype: str, name: str, *operands: Expr) -> Expr:
    """A call without side effects."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *operands)


def function(name: str, sums: Expr, *operands: Expr) -> Expr:
    """A call of a function that `InstructionSet.declarations` defines, whose result has the type of its sums."""
    from tvm import tirx

    return tirx.call_extern(str(sums.ty.dtype), name, sums, *operands)


def signed_bytes(words: Expr) -> Expr:
    """A vector of 32 bits as signed bytes."""
    from tvm import tirx

    return tirx.reinterpret(f"int8x{4 * words.ty.dtype.lanes}", words)


def unsigned_bytes(words: Expr) -> Expr:
    """A vector of 32 bits as unsigned bytes."""
    from tvm import tirx

    return tirx.reinterpret(f"uint8x{4 * words.ty.dtype.lanes}", words)


def even_and_odd(halves: Expr) -> tuple[Expr, Expr]:
    """The numbers of 16 bits at even places, and those at odd ones; of a word in all lanes each is one of its two."""
    from tvm import tirx

    count = halves.ty.dtype.lanes // 2
    if isinstance(halves.args[0], tirx.Broadcast):
        first, second = (tirx.Shuffle([halves], [place] * count) for place in (0, 1))
        return first, second
    words, narrow = tirx.reinterpret(f"int32x{count}", halves), f"int16x{count}"
    return tirx.Cast(narrow, words), tirx.Cast(narrow, words >> tirx.Broadcast(tirx.const(16, "int32"), count))


def round_to_bfloat16(value: Expr) -> Expr:
    """A call of the function that `rounding_to_bfloat16` defines."""
    from tvm import tirx

    return tirx.call_extern(f"uint16x{value.ty.dtype.lanes}", _ROUND, value)


def rounding_to_bfloat16(lanes: int) -> str:
    """A function that rounds a vector of float32 to the bits of bfloat16, in LLVM's language; it may be there twice."""
    floats, halves, bits = f"<{lanes} x float>", f"<{lanes} x bfloat>", f"<{lanes} x i16>"
    return f"""
define linkonce_odr {bits} @{_ROUND}({floats} %value) alwaysinline {{
  %rounded = fptrunc {floats} %value to {halves}
  %bits = bitcast {halves} %rounded to {bits}
  ret {bits} %bits
}}
"""


def of_pairs(name: str, instruction: str, lanes: int) -> str:
    """An instruction that multiplies pairs of bfloat16 and adds to sums as a function, to be inlined, whose arguments
    have types that TVM knows; in LLVM's language."""
    sums, words, pairs = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{2 * lanes} x bfloat>"
    return f"""
declare {sums} @{instruction}({sums}, {pairs}, {pairs})
define {sums} @{name}({sums} %sums, {words} %left, {words} %right) {{
  %a = bitcast {words} %left to {pairs}
  %b = bitcast {words} %right to {pairs}
  %total = call {sums} @{instruction}({sums} %sums, {pairs} %a, {pairs} %b)
  ret {sums} %total
}}
"""

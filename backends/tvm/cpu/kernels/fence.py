"""Fences between the steps of a reduction, for LLVM alone: they make no instruction, and no load, nor what belongs to a
step, is moved over one.

Without them its scheduler brings the loads of many steps together, to hide the time that they take, and spills.
"""

from __future__ import annotations

from tvm import ir, tirx

from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Expr, Stmt, block, load, store

_TURN = "lvc_turn"
_KEPT = {"float32": "lvc_kept_float", "int32": "lvc_kept_int", "float16": "lvc_kept_half"}
_TYPES = {"float32": "float", "int32": "i32", "float16": "half"}


def _source(vector: Vector) -> str:
    """All functions that steps may call, in LLVM's language."""
    types = [dtype for dtype in _KEPT if dtype != "float16" or dtype in vector.isa.dots]
    pieces = {dtype: 1 if dtype == "float16" else vector.isa.float_registers for dtype in types}
    kept = "".join(_kept(_KEPT[dtype], _TYPES[dtype], vector.lanes, pieces[dtype]) for dtype in types)
    return f"""{kept}
define i32 @{_TURN}() alwaysinline {{
  call void asm sideeffect "", "~{{memory}}"() noduplicate
  ret i32 0
}}
"""


def _kept(name: str, element: str, lanes: int, pieces: int) -> str:
    """The function for vectors that lie in one register, or in as many as there are pieces."""
    whole, part = f"<{lanes} x {element}>", f"<{lanes // pieces} x {element}>"
    fence = f'call {part} asm sideeffect "", "=w,0"({part} '
    if pieces == 1:
        body = f"  %kept = {fence}%value)"
    else:
        low, high = ((first, first + lanes // 2) for first in (0, lanes // 2))
        body = f"""  %low = {_shuffled(whole, "%value", "poison", range(*low))}
  %high = {_shuffled(whole, "%value", "poison", range(*high))}
  %first = {fence}%low)
  %second = {fence}%high)
  %kept = {_shuffled(part, "%first", "%second", range(lanes))}"""
    return f"""
define {whole} @{name}({whole} %value) alwaysinline {{
{body}
  ret {whole} %kept
}}
"""


def _shuffled(type: str, first: str, second: str, places: range) -> str:
    mask = ", ".join(f"i32 {place}" for place in places)
    return f"shufflevector {type} {first}, {type} {second}, <{len(places)} x i32> <{mask}>"


def kept(value: Expr) -> Expr:
    """A vector as it is, of which LLVM does not know what it is, nor makes it earlier or later."""
    dtype = str(value.ty.dtype)
    return tirx.call_extern(dtype, _KEPT[dtype.partition("x")[0]], value)


def fenced(step: Stmt, sums: Accumulators, vector: Vector) -> Stmt:
    """A step that adds to sums with a fence behind it, on processors for which LLVM needs them. A nest with such steps
    must be `declared`."""
    if not vector.isa.fenced:
        return step
    return block(step, *(store(s, kept(load(s, [0], sums.lanes)), [0], sums.lanes) for s in sums.buffers))


def fenced_turn(turn: Stmt, vector: Vector) -> Stmt:
    """A turn of a loop with a fence behind it, so that LLVM does not unroll the loop either."""
    return block(turn, tirx.Evaluate(tirx.call_extern("int32", _TURN))) if vector.isa.fenced else turn


def declared(nest: Stmt, vector: Vector, source: str = "") -> Stmt:
    """A nest, with what LLVM must be told before its steps around it: of fences, and what ``source`` says."""
    source += _source(vector) if vector.isa.fenced else ""
    return imported(nest, source) if source else nest


def imported(nest: Stmt, source: str) -> Stmt:
    """A nest with functions in LLVM's language that it calls."""
    return tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", ir.StringImm(source), nest)

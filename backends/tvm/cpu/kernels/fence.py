"""Fences between the steps of a reduction, for LLVM alone: they make no instruction, and no load, nor what belongs to a
step, is moved over one.

Without them its scheduler brings the loads of many steps together, to hide the time that they take, and spills.
"""

from __future__ import annotations

from tvm import ir, tirx

from lvc.backends.tvm.cpu.kernels.nest import Expr, Stmt, block, load, store
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.cpu.vector import Vector

_TURN, _KEPT = "lvc_turn", {"float32": "lvc_kept_float", "int32": "lvc_kept_int"}
_TYPES = {"float32": "float", "int32": "i32"}


def _source(lanes: int) -> str:
    kept = "".join(
        f"""
define <{lanes} x {_TYPES[dtype]}> @{name}(<{lanes} x {_TYPES[dtype]}> %value) alwaysinline {{
  %kept = call <{lanes} x {_TYPES[dtype]}> asm sideeffect "", "=w,0"(<{lanes} x {_TYPES[dtype]}> %value)
  ret <{lanes} x {_TYPES[dtype]}> %kept
}}
"""
        for dtype, name in _KEPT.items()
    )
    return f"""{kept}
define i32 @{_TURN}() alwaysinline {{
  call void asm sideeffect "", "~{{memory}}"() noduplicate
  ret i32 0
}}
"""


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
    source += _source(vector.lanes) if vector.isa.fenced else ""
    if not source:
        return nest
    return tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", ir.StringImm(source), nest)

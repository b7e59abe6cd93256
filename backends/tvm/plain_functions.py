"""Kernels as plain functions of C: a pointer for each buffer, and 0 for success.

TVM's own calling convention takes tagged values and tensors, and checks at each call what the plan has settled before.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, tirx
from tvm.ir import PointerType, PrimType
from tvm.tirx.stmt import DeclBuffer, Return

ALIGNED = "lvc.aligned"
"""The attribute of a function that says at multiples of how many bytes its buffers begin."""

CPU = 1
"""DLDeviceType."""


def make_plain(function: Any, module: Any, context: Any) -> Any:
    """Let a function take pointers to its buffers, which do not overlap and begin at multiples of as many bytes
    as its attribute `ALIGNED` says."""
    pointers = [
        tirx.Var(f"{buffer.name}_data", PointerType(PrimType(str(buffer.dtype)), "global"))
        for buffer in function.params
    ]
    declared = [DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(function.params, pointers, strict=True)]
    body = function.body
    for name, number in (("device_id", 0), ("device_type", CPU)):
        body = tirx.AttrStmt(ir.StringImm("default"), name, tirx.const(number, "int32"), body)
    alignment = int(function.attrs[ALIGNED])
    for buffer in function.params:
        body = tirx.AttrStmt(buffer, "storage_alignment", tirx.const(alignment, "int32"), body)
    whole = tirx.SeqStmt([*declared, body, Return(tirx.const(0, "int32"))])  # what the body takes it gives back before
    return tirx.PrimFunc(pointers, whole, PrimType("int32"), function.attrs)

"""Object files of kernels."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import tvm
import tvm_ffi
from tvm import ir
from tvm.ir.instrument import pass_instrument
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.cpu.lowering_passes import PIPELINE
from lvc.backends.tvm.cpu.short_rounding import ROUNDED_LANES
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.plain_functions import ALIGNED
from lvc.backends.tvm.program import Step
from lvc.compiler.errors import CompileError

_REASON_LENGTH = 160


def compile_kernel(
    step: Step, name: str, vector: Vector, options: dict[str, object], *, is_assembly: bool = False
) -> Object:
    """Schedule a step's kernel and compile it to an object file, or to the assembly of one.

    Where TVM refuses the step's own schedule the kernel gets one that asks nothing of it, and says so.
    """
    reasons: list[str] = []
    for attempt in (step.schedule, GeneralSchedule(apart=True), _unscheduled):
        schedule = Schedule(step.function)
        try:
            attempt(schedule, vector)
            function = schedule.mod["main"].with_attr("global_symbol", name).with_attr(ALIGNED, vector.bytes)
            if vector.isa.rounds_bfloat16:
                function = function.with_attr(ROUNDED_LANES, vector.lanes)
            made = compile_function(function, name, options, is_assembly=is_assembly)
            return replace(made, refused="".join(reasons[:1]))
        except Exception as error:  # TVM's checks raise many types
            reasons.append(f"{type(error).__name__}: {_last_line(error)}")
    raise CompileError(f"no kernel can be made for {', '.join(step.nodes)}", why=reasons[-1])


def _unscheduled(schedule: Any, vector: Vector) -> None:
    """Leave a kernel as it was computed: one thread, no vectors of ours."""


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[-1], _REASON_LENGTH, placeholder=" ...") if lines else "no reason given"


def compile_function(function: Any, name: str, options: dict[str, object], *, is_assembly: bool = False) -> Object:
    """Compile a TIR function to an object file, or to the assembly of one."""
    watch = _Allocations()
    with tvm.transform.PassContext(instruments=[watch]), tempfile.TemporaryDirectory(prefix="lvc-") as folder:
        library = tvm.compile(ir.IRModule({name: function}), target=options, tir_pipeline=PIPELINE)
        file = Path(folder) / ("kernel.s" if is_assembly else "kernel.o")
        library.mod.write_to_file(str(file))
        return Object(file.read_bytes(), tuple(sorted(watch.sizes, reverse=True)))


@pass_instrument
class _Allocations:
    """Notes the buffers that a kernel asks TVM's runtime for: those too large for the stack."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run_after_pass(self, module: Any, info: Any) -> None:
        if info.name == "tirx.LowerTVMBuiltin":
            for function in module.functions.values():
                tvm_ffi.structural_walk(function.body, [(ir.Call, self._visit)])

    def _visit(self, call: Any) -> None:
        if getattr(call.op, "name", "") == "tirx.TVMBackendAllocWorkspace":
            self.sizes.append(int(call.args[2]))

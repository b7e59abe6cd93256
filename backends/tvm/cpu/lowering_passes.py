"""How a scheduled TIR function becomes one that LLVM takes: TVM's passes for a CPU, with an unsound one fenced in."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.tirx import compilation_pipeline

from lvc.backends.tvm.cpu.short_rounding import round_by_instruction
from lvc.backends.tvm.kept_values import keep_values
from lvc.backends.tvm.plain_functions import make_plain
from lvc.backends.tvm.shifted_divisions import hide_shifted_divisions

PIPELINE = "lvc"


def _passes() -> list[Any]:
    """TVM's default passes for S-TIR, without those for GPUs, in their order."""
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.prim_func_pass(keep_values, opt_level=0, name="lvc.keep_values"),
        s_tir.transform.StmtSimplify(),
        tirx.transform.prim_func_pass(hide_shifted_divisions, opt_level=0, name="lvc.hide_shifted_divisions"),
        tirx.transform.FlattenBuffer(),
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.prim_func_pass(round_by_instruction, opt_level=0, name="lvc.round_by_instruction"),
        tirx.transform.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.VerifyMemory(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.prim_func_pass(make_plain, opt_level=0, name="lvc.make_plain"),
        tirx.transform.BF16StorageLegalize(),
    ]


def _pipeline() -> tuple[Any, Any, Any]:
    return (
        tvm.ir.transform.Sequential(_passes()),
        compilation_pipeline.finalize_host_passes,
        compilation_pipeline.finalize_device_passes,
    )


compilation_pipeline.register_tir_pipeline(PIPELINE, _pipeline)

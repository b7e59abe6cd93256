"""Builds one kernel with an epilogue behind it and runs it on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import tvm
from tvm import te
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.vector import Vector

AVX2 = Vector(Avx2())
RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    """Normal numbers."""
    return RNG.standard_normal(shape).astype("float32")


def blocked(array: np.ndarray, block: int) -> np.ndarray:
    """``[N, C, H, W]`` in blocks of channels; 7 in the lanes past the last, where anything finite may stand."""
    if not block:
        return array
    n, c, h, w = array.shape
    blocks = -(-c // block)
    padded = np.full((n, blocks * block, h, w), 7, array.dtype)
    padded[:, :c] = array
    return np.ascontiguousarray(padded.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2))


def unblocked(array: np.ndarray, channels: int) -> np.ndarray:
    """``[N, C, H, W]`` of an array in blocks of channels."""
    if array.ndim == 4:
        return array
    n, blocks, h, w, block = array.shape
    return array.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)[:, :channels]


def build(
    kernel: Any,
    problem: Any,
    shapes: Sequence[tuple[int, ...]],
    vector: Vector = AVX2,
    mcpu: str = "",
    **knobs: Any,
) -> Any:
    """Compile ``relu(2 * sums + residual) + sums`` (a diamond) for a kernel's operands; returns the function.

    The processor is one with vectors as wide, unless ``mcpu`` names another, for which LLVM cuts them.
    """
    operands = [te.placeholder(shape, "float32", f"x{i}") for i, shape in enumerate(shapes)]
    sums = kernel.compute(problem, *operands)
    residual = te.placeholder(sums.shape, "float32", "residual")
    double = te.compute(sums.shape, lambda *i: sums(*i) * 2.0 + residual(*i), name="double")
    last = te.compute(sums.shape, lambda *i: te.max(double(*i), 0.0) + sums(*i), name="last")
    sch = Schedule(te.create_prim_func([*operands, residual, last]))
    kernel.schedule(sch, problem, vector, **knobs)
    mcpu = mcpu or {16: "znver4", 8: "haswell", 4: "x86-64"}[vector.lanes]
    return tvm.compile(sch.mod, target={"kind": "llvm", "mcpu": mcpu})


def run(library: Any, operands: Sequence[np.ndarray], residual: np.ndarray) -> np.ndarray:
    """Call what `build` made."""
    arrays = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in (*operands, residual, np.zeros_like(residual))]
    library["main"](*arrays)
    return np.asarray(arrays[-1].numpy())


def expected(sums: torch.Tensor, residual: np.ndarray) -> np.ndarray:
    """The epilogue of `build`, in PyTorch."""
    return np.asarray((torch.relu(2 * sums + torch.from_numpy(residual)) + sums).numpy())


def check(kernel: Any, problem: Any, operands: Sequence[np.ndarray], sums: torch.Tensor, **options: Any) -> None:
    """Compare a kernel with PyTorch's ``sums``: ``[N, C, H, W]`` where the kernel's result is blocked."""
    library = build(kernel, problem, [a.shape for a in operands], **options)
    residual = random(*sums.shape)
    block = getattr(problem, "out_block", getattr(problem, "block", 0)) if sums.ndim == 4 else 0
    result = run(library, operands, blocked(residual, block))
    shown = unblocked(result, sums.shape[1]) if sums.ndim == 4 else result
    np.testing.assert_allclose(shown, expected(sums, residual), rtol=1e-4, atol=2e-4)


def written(kernel: Any, problem: Any, *shapes: tuple[int, ...]) -> int:
    """The length of a kernel's code."""
    operands = [te.placeholder(shape, "float32") for shape in shapes]
    sums = kernel.compute(problem, *operands)
    schedule = Schedule(te.create_prim_func([*operands, sums]))
    kernel.schedule(schedule, problem, AVX2)
    return len(str(schedule.mod))

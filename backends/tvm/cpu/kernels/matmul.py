"""The product of a matrix with stored weights: linear layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tvm import te

from lvc.backends.tvm.cpu.integer_layers import computes, dot_operand, matrix_operand, with_correction
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule, anchored_plain
from lvc.backends.tvm.cpu.kernels import panel_product
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.padding import copy_converted
from lvc.backends.tvm.cpu.kernels.panel_product import Knobs, PanelProduct
from lvc.backends.tvm.cpu.kernels.prefetch import prefetch
from lvc.backends.tvm.cpu.kernels.space import Space
from lvc.backends.tvm.cpu.stored_weight import StoredWeight
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import SATURATION_MASK, parameter, take_apart, write_nest
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, load, scratch, tasks
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class Matmul:
    """``[M, K]`` times ``[K, N]``, both results and data plain; weights in panels of ``block`` columns of words."""

    m: int
    n: int
    k: int
    block: int = 8
    operand: DotOperand = FLOAT32

    @cached_property
    def panels(self) -> int:
        """Panels of the weights."""
        return -(-self.n // self.block)

    @cached_property
    def steps(self) -> int:
        """Steps of the reduction."""
        return self.operand.count(self.k)


def compute(problem: Matmul, data: Any, weight: Any) -> Any:
    """The product as TE: data ``[M, K]``, weight as `pack_weight` makes it."""
    p = problem
    k = te.reduce_axis((0, p.k), "k")

    def anchor(i: Any, j: Any) -> Any:
        return te.sum(p.operand.factor(data[i, k]) * p.operand.weight(weight, (j // p.block, k, j % p.block)), axis=k)

    sums = te.compute((p.m, p.n), anchor, name="anchor")
    return te.compute((p.m, p.n), sums, name="result")


def packed_shape(problem: Matmul) -> tuple[int, ...]:
    """The shape of the packed weights: ``[ceil(N/block), steps, block]``."""
    return (problem.panels, problem.steps, problem.block)


def mask_shape(problem: Matmul) -> tuple[int, ...]:
    """The shape of the saturation mask of packed weights: ``[panels, steps]``."""
    return (problem.panels, problem.steps // problem.operand.words_per_step)


def pack_weight(problem: Matmul, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[N, K]`` (a linear layer's) into panels, zeros past the last column."""
    p = problem
    missing = p.panels * p.block - p.n
    padded = np.pad(weight, ((0, missing), (0, 0))) if missing else weight
    return p.operand.pack(np.ascontiguousarray(padded.reshape(p.panels, p.block, p.k).transpose(0, 2, 1)), -2)


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For all rows of an operand times a stored matrix."""
    if computes(call, aten.linear.default, integer.linear):
        return _rows_times(call, vector, "input", "weight", call["weight"].constant)
    if not is_call(call.node, aten.matmul.default) or call.dtype != "float32" or len(call["self"].shape) < 2:
        return None
    stored = call["other"].constant
    return None if stored is None else _rows_times(call, vector, "self", "other", stored.T)


def _rows_times(call: Call, vector: Vector, data: str, weight: str, values: np.ndarray | None) -> Anchor | None:
    """The rows of one operand times the other, whose values are ``[N, K]``."""
    if values is None or values.ndim != 2 or call[data].constant is not None:
        return None
    (n, k), m = values.shape, math.prod(call[data].shape[:-1])
    problem = Matmul(m, n, k, vector.lanes)

    def pack(operand: DotOperand) -> np.ndarray:
        return pack_weight(replace(problem, operand=operand), values)

    problem = _quicker(replace(problem, operand=dot_operand(call, vector, pack)), vector)
    stored = StoredWeight(call, weight, values, problem, packed_shape(problem), pack_weight)
    stored.mask_saturation(mask_shape(problem))
    packed = stored.tensor()
    nest = replace(problem, operand=problem.operand.inside())
    result = compute(nest, call.tensor(data, (m, k)), packed)
    found = anchored_plain(call, result, (m, n), KernelSchedule(schedule, nest))
    return found if data == "self" else replace(found, array=with_correction(call, found.array, problem.operand, -1))


def _quicker(problem: Matmul, vector: Vector) -> Matmul:
    """The problem with products of matrices in place of its operand's, if these take fewer cycles."""
    matrix = matrix_operand(problem.operand, vector)
    choices = [problem, *([replace(problem, operand=matrix)] if matrix else [])]

    def cycles(p: Matmul) -> float:
        return panel_product.cycles((p.m, p.n, p.steps), p.block, vector, p.operand)

    return min(choices, key=cycles)


def choose_knobs(problem: Matmul, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count; tasks whose rows stay in the second-level cache."""
    return panel_product.choose_knobs((problem.m, problem.n, problem.steps), 1, problem.block, vector, problem.operand)


def space(problem: Matmul, vector: Vector) -> Space:
    """What the knobs may be."""
    return panel_product.space((problem.m, problem.n, problem.steps), 1, problem.block, vector, problem.operand)


def schedule(sch: Any, problem: Matmul, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    p, knobs = problem, knobs or choose_knobs(problem, vector)
    fused = take_apart(sch)
    data, weight = fused.operands
    rows = scratch([p.m, p.k], "rows", p.operand.element) if p.operand.is_converted else data

    def finish(row: Expr, column: Expr, sums: Buffer, lanes: int) -> Stmt:
        return fused.finish([row, column], sums, lanes=lanes)

    product = PanelProduct(
        (p.m, p.n, p.k),
        p.operand,
        p.block,
        vector,
        knobs,
        rows,
        (),
        lambda panel, k: load(weight, [panel, k, 0], p.block),
        finish,
        parameter(sch, SATURATION_MASK),
        lambda panel, k: prefetch(weight, [panel, k, 0]),
    )

    def task(row_part: Expr, panel_part: Expr) -> Stmt:
        part = product.part(row_part, panel_part)
        return allocate([rows], copy_converted(rows, data, p.operand.convert), part) if p.operand.is_converted else part

    write_nest(sch, p.operand.around(tasks((knobs.row_parts, knobs.panel_parts), task), vector))

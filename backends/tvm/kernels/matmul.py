"""The product of a matrix with stored weights: linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm import te

from lvc.backends.tvm.kernels import panel_product
from lvc.backends.tvm.kernels.fused import take_apart, write_nest
from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, load, tasks
from lvc.backends.tvm.kernels.panel_product import Knobs, PanelProduct
from lvc.backends.tvm.vector import Vector


@dataclass(frozen=True)
class Matmul:
    """``[M, K]`` times ``[K, N]``, both results and data plain; weights in panels of ``block`` columns."""

    m: int
    n: int
    k: int
    block: int = 8

    @cached_property
    def panels(self) -> int:
        """Panels of the weights."""
        return -(-self.n // self.block)


def compute(problem: Matmul, data: Any, weight: Any) -> Any:
    """The product as TE: data ``[M, K]``, weight as `pack_weight` makes it."""
    p = problem
    k = te.reduce_axis((0, p.k), "k")
    sums = te.compute(
        (p.m, p.n), lambda i, j: te.sum(data[i, k] * weight[j // p.block, k, j % p.block], axis=k), name="anchor"
    )
    return te.compute((p.m, p.n), sums, name="result")


def packed_shape(problem: Matmul) -> tuple[int, ...]:
    """The shape of the packed weights: ``[ceil(N/block), K, block]``."""
    return (problem.panels, problem.k, problem.block)


def pack_weight(problem: Matmul, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[N, K]`` (a linear layer's) into panels, zeros past the last column."""
    p = problem
    padded = np.zeros((p.panels * p.block, p.k), weight.dtype)
    padded[: p.n] = weight
    return np.ascontiguousarray(padded.reshape(p.panels, p.block, p.k).transpose(0, 2, 1))


def choose_knobs(problem: Matmul, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count; tasks whose rows stay in the second-level cache."""
    return panel_product.choose_knobs((problem.m, problem.n, problem.k), 1, problem.block, vector)


def schedule(sch: Any, problem: Matmul, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    p, knobs = problem, knobs or choose_knobs(problem, vector)
    fused = take_apart(sch)
    data, weight = fused.operands

    def finish(row: Expr, column: Expr, sums: Buffer, lanes: int) -> Stmt:
        return fused.finish([row, column], sums, lanes=lanes)

    product = PanelProduct(
        (p.m, p.n, p.k),
        p.block,
        vector,
        knobs,
        lambda row, k: load(data, [row, k]),
        lambda panel, k: load(weight, [panel, k, 0], p.block),
        finish,
    )
    write_nest(sch, tasks((knobs.row_parts, knobs.panel_parts), product.part))

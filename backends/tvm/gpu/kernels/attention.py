"""Attention in one pass by the tensor cores, in halves: ``softmax(q k) v`` without a matrix of scores in memory.

A block has rows of queries of one head, `ROWS` for each warp, and goes through keys and values chunk by chunk, with the
largest score and the sum of powers of each row so far: where a larger one comes, what has been summed is scaled down
(Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). Scores stay in registers: where the sums of
one product lie is where the next one wants its factor. What is rounded to halves are the powers before they are
divided by their sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph

from lvc.backends.tvm import attention as found_attention
from lvc.backends.tvm.attention import Found
from lvc.backends.tvm.device import Group
from lvc.backends.tvm.fused import Stage, stages_of
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.guards import guarded
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.attention_block import Attention, AttentionBlock
from lvc.backends.tvm.gpu.kernels.matmul import LEAST_ROWS
from lvc.backends.tvm.gpu.kernels.matrix_factors import Halves
from lvc.backends.tvm.gpu.launch import Launches, split
from lvc.backends.tvm.nest import Expr, Stmt
from lvc.backends.tvm.scope import dtype_text
from lvc.compiler.ir.graph import spec

MOST_WIDE = 128  # columns of queries, keys and values
WARPS = (4, 2, 1)


def groups(graph: Graph, gpu: Gpu) -> Iterator[Group]:
    """All attention of a graph in halves that the tensor cores of a GPU multiply."""
    for element in (torch.float16, torch.bfloat16):
        if gpu.capability.multiplies(str(element).removeprefix("torch.")):
            yield from found_attention.groups(graph, element, lambda found: _schedule_of(found, gpu))


def _schedule_of(found: Found, gpu: Gpu) -> KernelSchedule | None:
    """How attention is made, with as many warps in a block as count least cycles; None if it is too small or wide."""
    queries, keys = spec(found.scores).shape[-2:]
    query, _, value = found.operands
    depth, width = spec(query).shape[-1], spec(value).shape[-1]
    if min(queries, keys) < LEAST_ROWS or max(depth, width) > MOST_WIDE:
        return None
    factor, batch = Halves(dtype_text(found.element)), spec(found.shaped).shape[:-2]
    ways = (Attention(batch, queries, keys, depth, width, found.order, factor, warps) for warps in WARPS)
    best = min(ways, key=lambda one: one.launch_cycles(gpu, one.blocks, one.resident(gpu)))
    return KernelSchedule(schedule, best)


def schedule(sch: Any, problem: Attention, launches: Launches) -> None:
    """Write the launch of the function."""
    stages = {name: _guarded(stage) for name, stage in stages_of(sch).items()}
    rows = -(-problem.queries // problem.rows)

    def body(number: Expr, thread: Expr) -> Stmt:
        head, row = split(number, (problem.heads, rows))
        return AttentionBlock(problem, stages, head, row * problem.rows, thread).body()

    launches.add(problem.blocks, problem.threads, body)


def _guarded(stage: Stage) -> Stage:
    """A stage that reads nothing that is not there."""
    known = {axis: (0, int(extent) - 1) for axis, extent in zip(stage.axes, stage.buffer.shape, strict=False)}
    return replace(stage, value=guarded(stage.value, known))

"""The attention of a graph that one kernel computes on a processor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Graph

from lvc.backends.tvm.attention import Found, groups
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import attention
from lvc.backends.tvm.cpu.kernels.attention_operands import Attention
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Group
from lvc.compiler.ir.graph import spec


def attention_groups(graph: Graph, vector: Vector) -> Iterator[Group]:
    """All attention of a graph for which the kernel is used on a target."""

    def schedule(found: Found) -> KernelSchedule | None:
        problem = _problem(found, vector)
        if not attention.serves(problem, vector):
            return None
        return KernelSchedule(attention.schedule, problem, attention.choose_knobs(problem, vector))

    return groups(graph, torch.float32, schedule)


def _problem(found: Found, vector: Vector) -> Attention:
    queries, keys = spec(found.scores).shape[-2:]
    (query, _, value), batch = found.operands, spec(found.shaped).shape[:-2]
    return Attention(batch, queries, keys, spec(query).shape[-1], spec(value).shape[-1], vector.lanes)

"""Regions of interest: each element of the result is one thread's, which adds up the samples of its cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.gpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.ordering import THREADS, launched
from lvc.backends.tvm.gpu.launch import local, split, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, load, store
from lvc.backends.tvm.ops.regions import Regions, Tap, feature_map, written
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import scalar_of
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import regions


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For all of them."""
    if not is_call(call.node, regions.roi_align):
        return None
    maps = [feature_map(call, index, PLAIN) for index in range(len(call["levels"]))]
    total = math.prod(call.shape)

    def nest(levels: Sequence[Buffer], rois: Buffer, level: Buffer, output: Buffer) -> Stmt:
        def thread(number: Expr, member: Expr) -> Stmt:
            flat = number * THREADS + member
            arithmetic = Regions(call, rois, level, lambda shape, name, dtype: local(list(shape), name, dtype))
            element = _element(arithmetic, split(flat, call.shape), output, read)
            return when(True if total % THREADS == 0 else flat < total, element)

        def read(which: int, image: Expr, channel: Expr, tap: Tap) -> Expr:
            return load(levels[which], maps[which][0].to_physical((image, channel, tap.row, tap.column)))

        return launched(-(-total // THREADS), THREADS, thread)

    array = written(call, [tensor for _, tensor in maps], PLAIN, nest)
    return Anchor(array, GeneralSchedule(apart=True))


def _element(arithmetic: Regions, place: Sequence[Expr], output: Buffer, read: Callable[..., Expr]) -> Stmt:
    """The sum of what is read around the samples of a cell, divided by their number."""
    k, channel, i, j = place
    total = local([1], "total", arithmetic.dtype)

    def cell(which: int) -> Stmt:
        def add(taps: Sequence[Tap]) -> Stmt:
            found = load(total, [0])
            for tap in taps:
                found = found + tap.weight * read(which, arithmetic.image, channel, tap)
            return store(total, found, [0])

        return block(
            store(total, scalar_of(0, arithmetic.dtype), [0]),
            arithmetic.over_samples(which, i, j, add),
            store(output, load(total, [0]) / arithmetic.samples, [k, channel, i, j]),
        )

    return allocate([*arithmetic.buffers, total], arithmetic.at_level(k, cell))

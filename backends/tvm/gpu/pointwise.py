"""Stages that read each other at the same element: each thread makes a few neighbours of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm_ffi
from tvm import ir

from lvc.backends.tvm.gpu.lanes import vector_lanes, write_lanes
from lvc.backends.tvm.gpu.launch import Launches, local, split, when
from lvc.backends.tvm.gpu.stages import Stage
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, grid, load

THREADS = 128


def write_elements(stages: Sequence[Stage], launches: Launches) -> None:
    """One launch that makes all elements of the last stage."""
    *inner, last = stages
    lanes = vector_lanes(str(last.buffer.dtype), last.extents[-1]) if last.extents else 1
    vectors = (*last.extents[:-1], last.extents[-1] // lanes) if last.extents else (1,)
    total = math.prod(vectors)

    def body(block_index: Expr, thread: Expr) -> Stmt:
        flat = block_index * THREADS + thread
        return when(True if total % THREADS == 0 else flat < total, _vector(inner, last, split(flat, vectors), lanes))

    launches.add(-(-total // THREADS), THREADS, body)


Place = Callable[[Expr], Sequence[Expr]]


def _vector(inner: Sequence[Stage], last: Stage, index: Sequence[Expr], lanes: int) -> Stmt:
    """Neighbouring elements of the last stage, and what they read of the others in registers."""

    def place(lane: Expr) -> list[Expr]:
        return [*index[:-1], index[-1] * lanes + lane] if last.extents else []

    made: dict[Buffer, Buffer] = {}
    statements = []
    for stage in [*inner, *([last] if last.reduced else [])]:
        target = local([lanes], f"sum{len(made)}", str(stage.buffer.dtype))
        statements.append(computed(stage, target, lanes, place, made))
        made[stage.buffer] = target

    def element(lane: Expr) -> Expr:
        return load(made[last.buffer], [lane]) if last.reduced else reading(last.at(place(lane)), made, lane)

    return allocate([*made.values()], *statements, write_lanes(lanes, last.buffer, place, element))


def computed(stage: Stage, target: Buffer, lanes: int, place: Place, made: Mapping[Buffer, Buffer]) -> Stmt:
    """Neighbouring elements of a stage in registers, each summed up by itself."""

    def write(element: Callable[[Expr], Expr]) -> Stmt:
        return write_lanes(lanes, target, lambda lane: [lane], element)

    def add(*terms: Expr) -> Stmt:
        return write(lambda lane: reading(stage.at(place(lane), terms, load(target, [lane])), made, lane))

    if not stage.reduced:
        return write(lambda lane: reading(stage.at(place(lane)), made, lane))
    return block(write(lambda _: stage.first), grid(stage.reduced_extents, add))


def reading(value: Expr, made: Mapping[Buffer, Buffer], lane: Expr) -> Expr:
    """A value that reads other stages at the same element, in registers."""

    def read(node: Any, mutator: Any) -> Any:
        return load(made[node.source], [lane]) if node.source in made else mutator.default_mutate(node)

    return tvm_ffi.structural_mutate(value, [(ir.TensorLoad, read)]) if made else value

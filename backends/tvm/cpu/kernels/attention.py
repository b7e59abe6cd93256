"""Attention in one pass: ``softmax(q k) v``, of which no more than a few rows of weights exist at a time.

A task has the keys of one head in panels, transposed in registers, and goes through its queries block by block: a block
of rows of scores, their bias and mask, their softmax and their product with the values stay in the caches near the
core. So there is neither a matrix of scores in memory nor a transposed copy of all keys. Rows of scores are whole: in
vision they are short enough that no maximum has to be corrected on the way, as in Milakov and Gimelshein, "Online
normalizer calculation for softmax", 2018.
"""

from __future__ import annotations

import math
from typing import Any

from lvc.backends.tvm.cpu.kernels.attention_nest import AttentionNest, Knobs
from lvc.backends.tvm.cpu.kernels.attention_operands import Attention
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32
from lvc.backends.tvm.cpu.kernels.parts import TASK_CYCLES, row_parts
from lvc.backends.tvm.cpu.kernels.register_tile import cut, tile_count
from lvc.backends.tvm.cpu.kernels.space import Point, Space, tiles
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.fused import stages_of, write_nest
from lvc.backends.tvm.nest import tasks

SCORE_SHARE = 0.5  # of the first level, for the rows of scores of a block
MOST_SHARE = 0.5  # of the second level
LEAST_ROWS = 4  # of a block
PACK_CYCLES = 5  # of a vector of keys or values, to fetch, to copy and to transpose it
EXP_CYCLES = 20  # of a vector of scores, for the function and what is around it


def serves(problem: Attention, vector: Vector) -> bool:
    """Whether the kernel is used on a target: it was measured with vectors of 8 and 16 lanes alone."""
    return vector.lanes >= 8 and not vector.machine.in_order and most_rows(problem, vector) >= LEAST_ROWS


def most_rows(problem: Attention, vector: Vector) -> int:
    """The rows of scores that a block may have."""
    return int(MOST_SHARE * vector.machine.second.size) // (4 * problem.pitch)


def choose_knobs(problem: Attention, vector: Vector) -> Knobs:
    """Tiles with the fewest cycles by count; as many rows in a block as the first level holds scores of."""
    cost = problem.score_cost(vector)
    return _knobs(problem, vector, cost.best_tile((problem.panels, problem.queries)))


def space(problem: Attention, vector: Vector) -> Space:
    """Every register tile for scores."""
    p, cost, plane = problem, problem.score_cost(vector), (problem.panels, problem.queries)

    def knobs(point: Point) -> Knobs:
        return _knobs(p, vector, (point[0], point[1]))

    return Space(
        ("score_vectors", "score_rows"),
        tuple(point for point in tiles(cost, HEIGHTS, plane) if knobs(point).score_rows == point[1]),
        knobs,
        lambda point: math.prod(p.batch) * cost.plane(plane, (point[0], point[1])),
    )


def _knobs(p: Attention, vector: Vector, tile: tuple[int, int]) -> Knobs:
    """The knobs with a register tile for scores: whole tiles in a block, equal blocks in a part."""
    machine, scores, values = vector.machine, p.score_cost(vector), p.value_cost(vector)
    few = int(SCORE_SHARE * machine.first.size) // (4 * p.pitch)
    rows = p.queries if p.queries <= few else max(few // tile[1], 1) * tile[1]
    rows = min(rows, p.queries, most_rows(p, vector))
    cycles = scores.plane((p.panels, p.queries), tile) + EXP_CYCLES * p.queries * p.panels
    cycles += values.plane((p.columns, p.queries), values.best_tile((p.columns, rows)))
    packing, heads = PACK_CYCLES * p.panels * (p.depth + p.columns), math.prod(p.batch)
    parts = row_parts(heads, p.queries, heads * cycles / TASK_CYCLES, machine.threads, packing / cycles)
    blocks = -(-tile_count(cut(p.queries, rows)) // parts) * parts
    rows = cut(p.queries, -(-p.queries // blocks))[0].size
    vectors, lines = values.best_tile((p.columns, rows))
    return Knobs(rows, tile[0], min(tile[1], rows), vectors, lines, parts)


def schedule(sch: Any, problem: Attention, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    nest = AttentionNest.of(problem, knobs, vector, stages_of(sch))
    write_nest(sch, FLOAT32.around(tasks((*problem.batch, knobs.row_parts), nest.task), vector))

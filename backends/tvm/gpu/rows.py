"""Stages that have rows in common: a block of threads makes one row, its stages one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tvm import tirx

from lvc.backends.tvm.gpu.lanes import vector_lanes, write_lanes
from lvc.backends.tvm.gpu.launch import WARP, Launches, barrier, local, shared, split, when
from lvc.backends.tvm.gpu.stages import Stage, with_buffers
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, grid, load, loop, store
from lvc.backends.tvm.program import ITEM_BYTES

MOST_THREADS = 256
SHARED_BYTES = 32 << 10  # that the stages of a row may take
LEAST_TERMS = 8  # of a sum, for a thread


def fits(stages: Sequence[Stage], common: int) -> bool:
    """Whether what a row's stages have between them fits in shared memory."""
    sizes = [math.prod(stage.extents[common:]) * ITEM_BYTES[str(stage.buffer.dtype)] for stage in stages[:-1]]
    return sum(sizes) <= SHARED_BYTES


def write_rows(stages: Sequence[Stage], common: int, launches: Launches) -> None:
    """One launch that makes all rows, which have the first ``common`` dimensions of all stages in common."""
    outer = stages[-1].extents[:common]
    threads = max(_threads(stage, common) for stage in stages)

    def body(row: Expr, thread: Expr) -> Stmt:
        return _Row(stages, common, threads, split(row, outer), thread).body()

    launches.add(math.prod(outer), threads, body)


def _threads(stage: Stage, common: int) -> int:
    """Threads that a stage of a row is worth."""
    elements = math.prod(stage.extents[common:])
    parts = max(1, stage.depth // LEAST_TERMS) if stage.reduced and stage.term is not None else 1
    return min(MOST_THREADS, max(WARP, _power(elements) * _power(parts)))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(0, number - 1).bit_length()


@dataclass
class _Row:
    """What one block does; ``outer`` is the index of its row."""

    stages: Sequence[Stage]
    common: int
    threads: int
    outer: Sequence[Expr]
    thread: Expr
    kept: dict[Buffer, tuple[Buffer, int]] = field(default_factory=dict)

    def body(self) -> Stmt:
        *inner, last = self.stages
        statements: list[Stmt] = []
        for stage in inner:
            sizes = stage.extents[self.common :] or (1,)
            made = shared(sizes, f"row{len(self.kept)}", str(stage.buffer.dtype))
            statements += [self.stage(stage, made), barrier()]
            self.kept[stage.buffer] = (made, self.common)
        return allocate([made for made, _ in self.kept.values()], *statements, self.stage(last, None))

    def stage(self, stage: Stage, made: Buffer | None) -> Stmt:
        """All elements of a stage, in shared memory or in the result."""
        stage, sizes = with_buffers(stage, self.kept), stage.extents[self.common :]
        elements = math.prod(sizes)
        team = self.threads // _power(elements)
        if stage.reduced and stage.term is not None and team > 1 and stage.depth > LEAST_TERMS:
            return self.by_teams(stage, made, team)
        lanes = 1 if stage.reduced or not sizes else vector_lanes(str(stage.buffer.dtype), sizes[-1])

        def one(turn: Expr) -> Stmt:
            vector = turn * self.threads + self.thread
            index = split(vector, (*sizes[:-1], sizes[-1] // lanes)) if sizes else []
            is_inside = True if elements % (self.threads * lanes) == 0 else vector < elements // lanes
            return when(is_inside, self.vector(stage, made, index, lanes))

        return loop(-(-elements // (self.threads * lanes)), one, name="turn")

    def vector(self, stage: Stage, made: Buffer | None, index: Sequence[Expr], lanes: int) -> Stmt:
        """Neighbouring elements by one thread."""

        def at(lane: Expr) -> list[Expr]:
            return [*index[:-1], index[-1] * lanes + lane] if index else []

        def place(lane: Expr) -> list[Expr]:
            return [*self.outer, *at(lane)] if made is None else at(lane) or [tirx.const(0, "int32")]

        target = stage.buffer if made is None else made
        if not stage.reduced:
            return write_lanes(lanes, target, place, lambda lane: stage.at([*self.outer, *at(lane)]))
        total = local([1], "total", str(stage.buffer.dtype))
        zero = tirx.const(0, "int32")
        add = grid(
            stage.reduced_extents,
            lambda *terms: store(total, stage.at([*self.outer, *at(zero)], terms, load(total, [0])), [0]),
        )
        return allocate([total], store(total, stage.first, [0]), add, store(target, load(total, [0]), place(zero)))

    def by_teams(self, stage: Stage, made: Buffer | None, team: int) -> Stmt:
        """Each sum by a team of neighbouring threads, whose parts are added up in pairs."""
        sizes, dtype = stage.extents[self.common :], str(stage.buffer.dtype)
        elements = math.prod(sizes)
        total, parts = local([1], "total", dtype), shared([self.threads], "parts", dtype)
        element = tirx.floordiv(self.thread, team) if team < self.threads else tirx.const(0, "int32")
        part = tirx.floormod(self.thread, team) if team < self.threads else self.thread
        index = split(element, sizes)
        is_one = True if team * elements == self.threads else element < elements

        def term(turn: Expr) -> Stmt:
            flat = turn * team + part
            added = stage.at([*self.outer, *index], split(flat, stage.reduced_extents), load(total, [0]))
            return when(True if stage.depth % team == 0 else flat < stage.depth, store(total, added, [0]))

        def pair(width: int) -> Stmt:
            mine, other = load(parts, [self.thread]), load(parts, [self.thread + width])
            return when(part < width, store(parts, stage.combined(mine, other), [self.thread]))

        widths = [team >> step for step in range(1, team.bit_length())]
        place = [*self.outer, *index] if made is None else index or [tirx.const(0, "int32")]
        target = stage.buffer if made is None else made
        is_first = part < 1 if is_one is True else tirx.all(part < 1, element < elements)
        return allocate(
            [total, parts],
            store(total, stage.first, [0]),
            when(is_one, loop(-(-stage.depth // team), term, name="turn")),
            store(parts, load(total, [0]), [self.thread]),
            barrier(),
            *(step for width in widths for step in (pair(width), barrier())),
            when(is_first, store(target, load(parts, [self.thread]), place)),
        )

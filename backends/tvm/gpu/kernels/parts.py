"""Sums that are made in parts by different blocks, and added up by another launch in the order of the parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tvm import tirx

from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.guards import fused_of
from lvc.backends.tvm.gpu.lanes import vector_lanes, write_lanes
from lvc.backends.tvm.gpu.launch import Launches, copy, local, split, when
from lvc.backends.tvm.nest import UNROLLED, Buffer, Expr, Stmt, allocate, block, load, loop, store, zeros

THREADS = 128


class Parted(Protocol):
    """A tile of sums: each of so many ``parts`` by blocks of so many ``threads``."""

    @property
    def parts(self) -> int: ...

    @property
    def threads(self) -> int: ...


TileBody = Callable[[Fused, Buffer | None, list[Expr], Expr], Stmt]
"""What the block of a tile does for a fused function: with memory for the parts of sums, at its place, by a thread."""


def launch_tiles(sch: Any, tile: Parted, grid: Sequence[int], launches: Launches, body: TileBody) -> None:
    """Write the launches of a fused function of tiles: a block for each part and each place of the ``grid``, and what
    adds up the parts. A place is ``[part, *grid]``."""
    fused, places = fused_of(sch), (tile.parts, *grid)
    made = _memory(fused, tile.parts, launches)
    launches.add(
        math.prod(places), tile.threads, lambda number, thread: body(fused, made, split(number, places), thread)
    )
    if made is not None:
        _add(fused, made, launches)


def _memory(fused: Fused, parts: int, launches: Launches) -> Buffer | None:
    """Memory for as many parts of the sums, in the shape of the output; None where there is but one."""
    if parts == 1:
        return None
    made = tirx.decl_buffer([parts, *fused.output.shape], str(fused.sums.dtype), "parts")
    launches.scratch.append(made)
    return made


def _add(fused: Fused, made: Buffer, launches: Launches) -> None:
    """The launch that adds them up and turns the sums into the output; a thread asks for all parts before it adds the
    first, so that it waits once."""
    parts, *shape = (int(extent) for extent in made.shape)
    lanes = vector_lanes("float32", shape[-1])
    vectors = (*shape[:-1], shape[-1] // lanes)
    total = math.prod(vectors)

    def body(number: Expr, thread: Expr) -> Stmt:
        flat = number * THREADS + thread
        return when(True if total % THREADS == 0 else flat < total, one(split(flat, vectors)))

    def one(index: list[Expr]) -> Stmt:
        sums, held = local([lanes], "sums", str(made.dtype)), local([parts, lanes], "held", str(made.dtype))

        def place(lane: Expr) -> list[Expr]:
            return [*index[:-1], index[-1] * lanes + lane]

        def fetch(part: Expr) -> Stmt:
            return copy(held, [part, 0], made, [part, *place(tirx.const(0, "int32"))], lanes)

        def add(part: Expr) -> Stmt:
            return block(*(store(sums, load(sums, [lane]) + load(held, [part, lane]), [lane]) for lane in range(lanes)))

        return allocate(
            [sums, held],
            loop(parts, fetch, UNROLLED, "part"),
            *(store(sums, zeros(1, str(made.dtype)), [lane]) for lane in range(lanes)),
            loop(parts, add, UNROLLED, "part"),
            write_lanes(lanes, fused.output, place, lambda lane: fused.element(place(lane), load(sums, [lane]))),
        )

    launches.add(-(-total // THREADS), THREADS, body)

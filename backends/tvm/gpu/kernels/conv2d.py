"""Convolution as a product without a matrix of windows: rows are pixels of the result, terms are taps and channels, and
each block gathers its part of the windows as it needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.guards import fused_of
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.factors import MOST_TERMS, SINGLE, WORD, Bytes, Factor
from lvc.backends.tvm.gpu.kernels.parts import add_parts, parts_of
from lvc.backends.tvm.gpu.kernels.tile import (
    QUAD,
    SMALLEST,
    STEP,
    Tile,
    TileProduct,
    choose_tile,
    padded_columns,
    padded_terms,
)
from lvc.backends.tvm.gpu.kernels.windows import Windows, can_convolve, windows_of
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import Launches, copy, local, split, when
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, load, store
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class Conv2d:
    """Data ``[N, ceil(C/4), H, W, 4]``, or plain ``[N, C, H, W]`` where not ``is_blocked``; result
    ``[N, ceil(O/4), OH, OW, 4]``. Channels of groups are multiples of 4 where there are several."""

    windows: Windows
    channels: int
    filters: int
    groups: int
    is_blocked: bool
    factor: Factor = SINGLE
    tile: Tile = SMALLEST

    @property
    def group_channels(self) -> int:
        """Channels of a group in memory."""
        each = self.channels // self.groups
        return -(-each // QUAD) * QUAD if self.is_blocked else each

    @property
    def group_filters(self) -> int:
        """Results of a group in memory."""
        return -(-self.filters // self.groups // QUAD) * QUAD

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.group_channels // self.factor.elements * self.windows.taps

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of the packed weights: groups, terms, results."""
        return self.groups, padded_terms(self.tile, self.depth), padded_columns(self.tile, self.group_filters)


def pack_weight(problem: Conv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of the terms: taps outside and channels inside, or, of plain
    data, channels outside."""
    p = problem
    packed = np.zeros(p.weight_shape, p.factor.dtype)
    each, taps = p.filters // p.groups, p.windows.taps
    by_group = weight.reshape(p.groups, each, p.channels // p.groups, taps)
    terms = np.zeros((p.groups, each, p.group_channels, taps), weight.dtype)
    terms[:, :, : by_group.shape[2]] = by_group
    ordered = terms.transpose(0, 3, 2, 1) if p.is_blocked else terms.transpose(0, 2, 3, 1)
    packed[:, : p.depth, :each] = p.factor.pack(ordered.reshape(p.groups, -1, each))
    return packed


def compute(problem: Conv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    p, w = problem, problem.windows
    term = te.reduce_axis((0, p.depth), "term")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        out = o * QUAD + lane
        group = out // p.group_filters
        element = term * p.factor.elements
        channel, tap = (
            (element % p.group_channels, element // p.group_channels)
            if p.is_blocked
            else (element // w.taps, element % w.taps)
        )
        row, column = w.place(y, x, tap)
        whole = group * p.group_channels + channel
        at = (n, whole // QUAD, row, column, whole % QUAD) if p.is_blocked else (n, whole, row, column)
        value = tirx.if_then_else(w.is_inside(row, column), p.factor.term(data[at].asobject()), p.factor.outside())
        factor = weight[group, term, out % p.group_filters]
        return te.sum(p.factor.product(value, factor, tirx.const(0, p.factor.dtype)), axis=term)

    shape = (w.batch, -(-p.filters // QUAD), w.out_height, w.out_width, QUAD)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights in float32, or in integers."""
    is_single = is_call(call.node, aten.conv2d.default) and can_convolve(call, "float32")
    is_integer = is_call(call.node, integer.conv2d) and can_convolve(call, "uint8", "int8")
    if not (is_single or is_integer):
        return None
    layout = call.layout_of("input")
    assert layout is not None
    weight = call["weight"].constant
    channels, filters, groups = call["input"].shape[1], len(weight), call["groups"]
    if groups > 1 and (not layout.block or channels // groups % QUAD or filters // groups % QUAD):
        return None
    factor: Factor = Bytes.of(call) if is_integer else SINGLE
    problem = Conv2d(windows_of(call), channels, filters, groups, bool(layout.block), factor)
    if is_integer and (not layout.block or problem.depth * WORD > MOST_TERMS):
        return None
    pixels = problem.windows.pixels
    problem = replace(problem, tile=choose_tile(gpu, pixels, problem.group_filters, problem.depth, groups))
    return anchored(call, problem)


def anchored(call: Call, problem: Conv2d) -> Anchor:
    """The kernel of a call."""
    values = call["weight"].constant
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    packed = call.scope.parameter(
        problem.weight_shape, problem.factor.dtype, Constant(key, lambda: pack_weight(problem, values))
    )
    result = compute(problem, call.tensor("input"), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    return Anchor(problem.factor.corrected(call, total, 1), KernelSchedule(schedule, problem))


def schedule(sch: Any, problem: Conv2d, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, fused = problem, fused_of(sch)
    tile, w = p.tile, p.windows
    made = parts_of(fused, tile.parts, launches)
    rows, columns = -(-w.pixels // tile.rows), -(-p.group_filters // tile.columns)

    def body(number: Expr, thread: Expr) -> Stmt:
        turns = tile.rows * STEP // QUAD // tile.threads
        corners = local([turns, 3], "corner", "int32")
        part, group, column, row = split(number, (tile.parts, p.groups, columns, rows))
        return _Block(p, fused, made, part, group, column * tile.columns, row * tile.rows, thread, corners).body()

    launches.add(rows * columns * p.groups * tile.parts, tile.threads, body)
    if made is not None:
        add_parts(fused, made, launches)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of a group's result, or of a part of its sums, from a row and a column on. ``corners`` are the
    image, row and column where the windows of the rows begin that a thread loads."""

    problem: Conv2d
    fused: Fused
    parts: Buffer | None
    part: Expr
    group: Expr
    column: Expr
    row: Expr
    thread: Expr
    corners: Buffer

    def body(self) -> Stmt:
        p, tile = self.problem, self.problem.tile
        first = self.part * (tile.steps(p.depth) * STEP)
        fetch = self.fetch_blocked if p.is_blocked and p.factor.elements == 1 else self.fetch_terms
        product = TileProduct(
            tile,
            tile.steps(p.depth),
            self.thread,
            fetch,
            self.prepare,
            self.fused.operands[1],
            lambda term, column: [self.group, first + term, self.column + column],
            self.finish,
            factor=p.factor,
        )
        return allocate([self.corners], product.body())

    def prepare(self, turn: int, row: Expr) -> Stmt:
        """The image, and the row and column of the first tap, of a pixel; beyond the last one a row that is outside."""
        w = self.problem.windows
        pixel = self.row + row
        image, y, x = split(pixel, (w.batch, w.out_height, w.out_width))
        is_there = pixel < w.pixels
        top, left = w.corner(y, x)
        top = (
            top
            if w.pixels % self.problem.tile.rows == 0
            else tirx.Select(is_there, top, tirx.const(-(1 << 20), "int32"))
        )
        values = image, top, left
        return block(*(store(self.corners, value, [turn, place]) for place, value in enumerate(values)))

    def fetch_blocked(self, turn: int, step: Expr, quad: Expr, row: Expr, rows: Buffer) -> Stmt:
        """Four channels of one tap."""
        p, w = self.problem, self.problem.windows
        words = p.group_channels // QUAD
        word = (self.part * p.tile.steps(p.depth) + step) * (STEP // QUAD) + quad
        tap, channel = tirx.floordiv(word, words), tirx.floormod(word, words)
        image, y, x = self.tap(turn, tap)
        inside = w.is_inside(y, x)
        if padded_terms(p.tile, p.depth) > p.depth:
            inside = tirx.all(inside, word * QUAD < p.depth)
        index = [image, self.group * words + channel, y, x, 0]
        zero = [store(rows, tirx.const(0, "float32"), [turn, lane]) for lane in range(QUAD)]
        return tirx.IfThenElse(inside, copy(rows, [turn, 0], self.fused.operands[0], index, QUAD), block(*zero))

    def fetch_terms(self, turn: int, step: Expr, quad: Expr, row: Expr, rows: Buffer) -> Stmt:
        """Four terms, each by itself."""
        p, w, data = self.problem, self.problem.windows, self.fused.operands[0]

        def one(lane: int) -> Stmt:
            term = (self.part * p.tile.steps(p.depth) + step) * STEP + quad * QUAD + lane
            tap, channel = self.tap_and_channel(term)
            image, y, x = self.tap(turn, tap)
            inside = tirx.all(w.is_inside(y, x), term < p.depth)
            index = [image, channel, y, x, 0] if p.is_blocked else [image, channel, y, x]
            value = tirx.if_then_else(inside, p.factor.term(load(data, index)), p.factor.outside())
            return store(rows, value, [turn, lane])

        return block(*(one(lane) for lane in range(QUAD)))

    def tap_and_channel(self, term: Expr) -> tuple[Expr, Expr]:
        """The tap of a term, and its channel of plain data or its block of channels."""
        p = self.problem
        if not p.is_blocked:
            return tirx.floormod(term, p.windows.taps), tirx.floordiv(term, p.windows.taps)
        words = p.group_channels // QUAD
        return tirx.floordiv(term, words), self.group * words + tirx.floormod(term, words)

    def tap(self, turn: int, tap: Expr) -> tuple[Expr, Expr, Expr]:
        image, top, left = (load(self.corners, [turn, place]) for place in range(3))
        down, across = self.problem.windows.offset(tap)
        return image, top + down, left + across

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write four channels of a pixel."""
        p, w = self.problem, self.problem.windows
        pixel, channel = self.row + row, self.column + column
        image, y, x = split(pixel, (w.batch, w.out_height, w.out_width))
        index = [image, self.group * (p.group_filters // QUAD) + tirx.floordiv(channel, QUAD), y, x]

        def total(lane: Expr) -> Expr:
            return load(sums, [at[0], at[1] + lane])

        def element(lane: Expr) -> Expr:
            return self.fused.element([*index, lane], total(lane))

        if self.parts is None:
            written = write_lanes(QUAD, self.fused.output, lambda lane: [*index, lane], element)
        else:
            written = write_lanes(QUAD, self.parts, lambda lane: [self.part, *index, lane], total)
        conditions = [pixel < w.pixels] if w.pixels % p.tile.rows else []
        conditions += [channel < p.group_filters] if p.group_filters % p.tile.columns else []
        return when(tirx.all(*conditions) if conditions else True, written)

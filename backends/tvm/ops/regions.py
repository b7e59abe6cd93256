"""Regions of interest: one loop nest that reads the samples of a region in the feature map where it lies.

Numbers of a sample are computed once for all channels, and nothing of it is stored between the map and the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import te, tirx

from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    int32,
    load,
    loop,
    scratch,
    splat,
    store,
    tasks,
    zeros,
)
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, scalar_of
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import regions

NewBuffer = Callable[[tuple[int, ...], str, str], Buffer]
_MOST_SAMPLES = 1 << 30
_START, _SIZE = (0, 2), (1, 3)
"""Where those of rows and of columns are in the buffer of a region."""


@dataclass(frozen=True)
class Tap:
    """One of the four pixels around a sample, and its weight."""

    row: Expr
    column: Expr
    weight: Expr


@dataclass(frozen=True)
class Regions:
    """The arithmetic of a call, in which a statement is written for each tap of each sample.

    ``new`` makes a buffer of what one task or thread works in; all of them are in ``buffers``.
    """

    call: Call
    rois: Buffer
    level: Buffer
    new: NewBuffer
    buffers: list[Buffer] = field(default_factory=list)

    def __post_init__(self) -> None:
        dtype = self.dtype
        for shape, name, kind in (((4,), "region", dtype), ((3,), "whole", "int32"), ((2,), "rest", dtype)):
            self.buffers.append(self.new(shape, name, kind))
        self.buffers.append(self.new((4,), "pixels", "int32"))

    @property
    def dtype(self) -> str:
        return self.call.dtype

    @property
    def image(self) -> Expr:
        """The number of the region's image."""
        return load(self.buffers[1], [2])

    @property
    def samples(self) -> Expr:
        """How many samples a cell has."""
        count = load(self.buffers[1], [0]) * load(self.buffers[1], [1])
        return tirx.Cast(self.dtype, tirx.max(count, 1))

    def at_level(self, k: Expr, body: Callable[[int], Stmt]) -> Stmt:
        """What there is to do for a region in the map where it lies, ``body(level)`` for each of them."""
        count = len(self.call["levels"])
        chosen = block(self._measured(k, count - 1), body(count - 1))
        for number in reversed(range(count - 1)):
            found = block(self._measured(k, number), body(number))
            chosen = tirx.IfThenElse(tirx.EQ(load(self.level, [k]), tirx.const(number, "int64")), found, chosen)
        return chosen

    def _measured(self, k: Expr, number: int) -> Stmt:
        """Where the cells of a region begin, how large they are, and how many samples they have."""
        region, whole, *_ = self.buffers
        images = self.call["levels"][number].shape[0]
        image = tirx.Cast("int32", load(self.rois, [k, int32(0)]))
        steps = [store(whole, tirx.max(tirx.min(image, images - 1), 0), [2])]
        for axis in range(2):
            start, end = (self._place(load(self.rois, [k, int32(which)]), number) for which in (2 - axis, 4 - axis))
            length = end - start
            if not self.call["aligned"]:
                length = tirx.max(length, self._number(1))
            size = length / self._number(self.call["cells"][axis])
            steps += [store(region, start, [_START[axis]]), store(region, size, [_SIZE[axis]])]
            steps.append(store(whole, self._count(load(region, [_SIZE[axis]])), [axis]))
        return block(*steps)

    def _place(self, coordinate: Expr, number: int) -> Expr:
        """A coordinate in pixels; rounded as a product before half a pixel is taken away."""
        product = tirx.Cast(self.dtype, coordinate) * self._number(self.call["scales"][number])
        fenced = tirx.call_llvm_pure_intrin(self.dtype, "llvm.arithmetic.fence", product)
        return fenced - self._number(0.5) if self.call["aligned"] else fenced

    def _count(self, size: Expr) -> Expr:
        if self.call["samples"]:
            return int32(int(self.call["samples"]))
        found = tirx.max(tirx.min(tirx.ceil(size), self._number(_MOST_SAMPLES)), self._number(0))
        return tirx.Cast("int32", tirx.Select(size > self._number(0), found, self._number(0)))

    def over_samples(self, number: int, i: Expr, j: Expr, body: Callable[[Sequence[Tap]], Stmt]) -> Stmt:
        """``body(taps)`` for each sample of a cell that is inside of the map."""
        height, width = self.call["levels"][number].shape[2:]
        _, whole, rest, pixels = self.buffers
        rows, columns = ((load(pixels, [2 * axis]), load(pixels, [2 * axis + 1])) for axis in range(2))
        down, across = ((self._number(1) - load(rest, [axis]), load(rest, [axis])) for axis in range(2))
        taps = [Tap(rows[y], columns[x], down[y] * across[x]) for y in range(2) for x in range(2)]
        return loop(
            load(whole, [0]),
            lambda y: self._inside(
                0, i, y, height, loop(load(whole, [1]), lambda x: self._inside(1, j, x, width, body(taps)), name="x")
            ),
            name="y",
        )

    def _inside(self, axis: int, cell: Expr, sample: Expr, size: int, body: Stmt) -> Stmt:
        """What follows once the pixels around a sample are known along an axis; nothing if it is outside."""
        region, whole, rest, pixels = self.buffers
        start, length = load(region, [_START[axis]]), load(region, [_SIZE[axis]])
        count = tirx.Cast(self.dtype, load(whole, [axis]))
        within = (tirx.Cast(self.dtype, sample) + self._number(0.5)) * length / count
        at = start + tirx.Cast(self.dtype, cell) * length + within
        exact = load(rest, [axis])
        nearest = tirx.max(tirx.min(exact, self._number(size - 1)), self._number(0))
        first = load(pixels, [2 * axis])
        found = block(
            store(rest, nearest, [axis]),
            store(pixels, tirx.Cast("int32", exact), [2 * axis]),
            store(pixels, tirx.min(first + 1, size - 1), [2 * axis + 1]),
            store(rest, exact - tirx.Cast(self.dtype, first), [axis]),
            body,
        )
        is_inside = tirx.all(exact >= self._number(-1), exact <= self._number(size))
        return block(store(rest, at, [axis]), tirx.IfThenElse(is_inside, found, None))

    def _number(self, value: float) -> Expr:
        return scalar_of(value, self.dtype)


@lowers(regions.roi_align)
def roi_align(call: Call) -> Array:
    """A region is one task, in which the channels of a cell are summed up a vector at a time."""
    count, channels, height, width = call.shape
    lanes, layout = call.scope.lanes, call.layout
    maps = [feature_map(call, index, Layout(lanes)) for index in range(len(call["levels"]))]
    widest = max(own.block for own, _ in maps)

    def nest(levels: Sequence[Buffer], rois: Buffer, level: Buffer, output: Buffer) -> Stmt:
        def region(k: Expr) -> Stmt:
            arithmetic = Regions(call, rois, level, scratch)
            sums = scratch((-(-channels // widest) * widest,), "sums", call.dtype)

            def cell(number: int, i: Expr, j: Expr) -> Stmt:
                vectors = _Vectors(sums, maps[number][0].block, lanes, channels)
                return block(
                    vectors.clear(),
                    arithmetic.over_samples(
                        number, i, j, lambda taps: vectors.add(levels[number], arithmetic.image, taps)
                    ),
                    vectors.divide(arithmetic.samples),
                    loop(channels, lambda c: store(output, load(sums, [c]), layout.to_physical((k, c, i, j)))),
                )

            def cells(number: int) -> Stmt:
                return loop(height, lambda i: loop(width, lambda j: cell(number, i, j), name="j"), name="i")

            return allocate([*arithmetic.buffers, sums], arithmetic.at_level(k, cells))

        return tasks((count,), region)

    return written(call, [tensor for _, tensor in maps], layout, nest)


@dataclass(frozen=True)
class _Vectors:
    """The sums of one cell, all channels of a map with blocks of so many, worked on a vector at a time."""

    sums: Buffer
    block: int
    lanes: int
    channels: int

    @property
    def step(self) -> int:
        return min(self.lanes, self.block) if self.block % min(self.lanes, self.block) == 0 else 1

    def clear(self) -> Stmt:
        dtype = str(self.sums.dtype)
        return self._each(lambda at, *_: store(self.sums, zeros(self.step, dtype), [at], self.step))

    def add(self, given: Buffer, image: Expr, taps: Sequence[Tap]) -> Stmt:
        """The pixels of a map around a sample, by their weights."""

        def one(at: Expr, c: Expr, lane: Expr) -> Stmt:
            total = load(self.sums, [at], self.step)
            for tap in taps:
                found = load(given, [image, c, tap.row, tap.column, lane], self.step)
                total = total + splat(tap.weight, self.step) * found
            return store(self.sums, total, [at], self.step)

        return self._each(one)

    def divide(self, by: Expr) -> Stmt:
        divisor = splat(by, self.step)
        return self._each(lambda at, *_: store(self.sums, load(self.sums, [at], self.step) / divisor, [at], self.step))

    def _each(self, write: Callable[[Expr, Expr, Expr], Stmt]) -> Stmt:
        """A statement for each vector: of its first channel, of its block, and of its place in it."""

        def whole(c: Expr) -> Stmt:
            return loop(
                self.block // self.step, lambda v: write(c * self.block + v * self.step, c, v * self.step), name="v"
            )

        return loop(-(-self.channels // self.block), whole, name="c")


Nest = Callable[[Sequence[Buffer], Buffer, Buffer, Buffer], Stmt]


def written(call: Call, maps: Sequence[Expr], layout: Layout, nest: Nest) -> Array:
    """The array of a call that ``nest(maps, rois, level, result)`` writes in a layout."""
    places = [call.scope.tensor(call[name].shape, call[name].read) for name in ("rois", "level")]
    inputs, shape = [*maps, *places], layout.physical(call.shape)
    buffers = [tirx.decl_buffer(tensor.shape, tensor.dtype, f"in{i}") for i, tensor in enumerate(inputs)]

    def body(given: Sequence[Buffer], made: Sequence[Buffer]) -> Stmt:
        *levels, rois, level = given
        return nest(levels, rois, level, made[0])

    call.scope.has_lookups = True
    tensor = te.extern(shape, inputs, body, f"{call.node.name}_regions", call.dtype, in_buffers=buffers)
    return call.scope.leaf(tensor, call.shape, layout)


def feature_map(call: Call, index: int, wanted: Layout) -> tuple[Layout, Expr]:
    """A map as it lies in memory, if its channels are in blocks or shall be in none; else a copy of it."""
    node, given = arguments(call.node)["levels"][index], call["levels"][index]
    own = call.layouts.get(node)
    if own is not None and (own.block or own == wanted):
        return own, call.scope.tensor_of(node, spec(node), own)
    layout = wanted

    def read(axes: Sequence[Expr]) -> Expr:
        return given.read(layout.to_logical(axes))

    return layout, call.scope.tensor(layout.physical(given.shape), read)

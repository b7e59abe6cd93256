"""Convolution over blocked channels, any stride, padding, dilation and groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.kernels.conv2d_nest import Nest
from lvc.backends.tvm.kernels.fused import take_apart, write_nest
from lvc.backends.tvm.kernels.register_tile import HEIGHTS, best_tile, cut, tile_count
from lvc.backends.tvm.vector import Vector

SCRATCH_BYTES = 192 << 10  # of padded rows that one task keeps: they should stay in the second-level cache
TASK_FLOPS = 4e6  # below this a task is not worth its own thread
MOST_TASKS = 16
FEWEST_LINES = 4  # a task with fewer rows copies its margin too often


@dataclass(frozen=True)
class Conv2d:
    """Data ``[N, ceil(C/in_block), H, W, in_block]``, or plain ``[N, C, H, W]`` where ``in_block`` is 0; result
    ``[N, ceil(O/out_block), OH, OW, out_block]``. ``padding`` is (top, left, bottom, right).

    Lanes past the last channel may hold any finite number in the data, and hold 0 in the result.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_block: int = 8
    out_block: int = 8

    @cached_property
    def out_height(self) -> int:
        """Rows of the result."""
        padded = self.height + self.padding[0] + self.padding[2]
        return (padded - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1

    @cached_property
    def out_width(self) -> int:
        """Columns of the result."""
        padded = self.width + self.padding[1] + self.padding[3]
        return (padded - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1

    @cached_property
    def lanes(self) -> int:
        """Channels in a block of the data; 1 for plain data."""
        return self.in_block or 1

    @cached_property
    def in_blocks(self) -> int:
        """Blocks of the data."""
        return -(-self.in_channels // self.lanes)

    @cached_property
    def out_blocks(self) -> int:
        """Blocks of the result."""
        return -(-self.out_channels // self.out_block)

    @cached_property
    def span(self) -> int:
        """Blocks of the data that one block of the result depends on, at most."""
        return max(_last_block(self, o) - _first_block(self, o) + 1 for o in range(self.out_blocks))

    @cached_property
    def depth(self) -> int:
        """Multiply-adds to one element of the result, those with the zeros that complete a block included."""
        return self.span * self.lanes * self.kernel[0] * self.kernel[1]

    @cached_property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.padding)

    @cached_property
    def is_flat(self) -> bool:
        """Whether an output pixel depends on the input pixel of the same place alone, and rows do not matter."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not self.is_padded

    @cached_property
    def line(self) -> int:
        """Output pixels in a row; of a flat problem, in an image."""
        return self.out_height * self.out_width if self.is_flat else self.out_width

    def pixel(self, row: Any, column: Any) -> tuple[Any, Any]:
        """Row and column of a pixel; of a flat problem, ``column`` counts through the image."""
        if not self.is_flat:
            return row, column
        return tirx.floordiv(column, self.out_width), tirx.floormod(column, self.out_width)

    def window(self, outputs: int, axis: int) -> int:
        """Padded rows (axis 0) or columns (axis 1) that so many outputs depend on."""
        return (outputs - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def first_block(self, out_block: Any) -> Any:
        """The first of the ``span`` blocks that a block of the result depends on."""
        if self.groups == 1:
            return 0
        first = _first_block(self, out_block)
        if max(_first_block(self, o) for o in range(self.out_blocks)) + self.span <= self.in_blocks:
            return first
        last = self.in_blocks - self.span
        return min(first, last) if isinstance(first, int) else tirx.min(first, last)


def _first_block(problem: Conv2d, out_block: Any) -> Any:
    group = out_block * problem.out_block // (problem.out_channels // problem.groups)
    return group * (problem.in_channels // problem.groups) // problem.lanes


def _last_block(problem: Conv2d, out_block: int) -> int:
    last_channel = min((out_block + 1) * problem.out_block, problem.out_channels) - 1
    group = last_channel // (problem.out_channels // problem.groups)
    return ((group + 1) * (problem.in_channels // problem.groups) - 1) // problem.lanes


@dataclass(frozen=True)
class Knobs:
    """What may be tuned. A register tile is ``vectors`` out-channel blocks by ``pixels``; the rows (of a flat problem:
    the pixels) of an image and its out-channel tiles are split into so many parts, each pair of parts a task."""

    vectors: int
    pixels: int
    row_parts: int
    channel_parts: int


def compute(problem: Conv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE: data as the problem says, weight as `pack_weight` makes it."""
    p = problem
    top, left, *_ = p.padding
    blocks = te.reduce_axis((0, p.span), "ci")
    rows, columns = te.reduce_axis((0, p.kernel[0]), "kh"), te.reduce_axis((0, p.kernel[1]), "kw")
    lanes = te.reduce_axis((0, p.lanes), "cl")

    def read(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        return data[n, c, y, x, lane] if p.in_block else data[n, c, y, x]

    def padded(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        inside = tirx.all(y >= top, y < p.height + top, x >= left, x < p.width + left)
        return tirx.if_then_else(inside, read(n, c, y - top, x - left, lane), tirx.const(0, data.dtype))

    source: Callable[..., Any] = read
    if p.is_padded:
        height, width = p.height + top + p.padding[2], p.width + left + p.padding[3]
        source = te.compute((p.batch, p.in_blocks, height, width, p.lanes), padded, name="pad")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        row = y * p.stride[0] + rows * p.dilation[0]
        column = x * p.stride[1] + columns * p.dilation[1]
        product = (
            source(n, p.first_block(o) + blocks, row, column, lanes) * weight[o, blocks, rows, columns, lanes, lane]
        )
        return te.sum(product, axis=[blocks, rows, columns, lanes])

    shape = (p.batch, p.out_blocks, p.out_height, p.out_width, p.out_block)
    sums = te.compute(shape, anchor, name="anchor")
    return te.compute(shape, sums, name="result")


def packed_shape(problem: Conv2d) -> tuple[int, ...]:
    """The shape of the packed weights: ``[O/out_block, span, KH, KW, lanes in, lanes out]``."""
    p = problem
    return (p.out_blocks, p.span, *p.kernel, p.lanes, p.out_block)


def pack_weight(problem: Conv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of their use, zeros where nothing is connected."""
    p = problem
    packed = np.zeros(packed_shape(p), weight.dtype)
    per_group_in, per_group_out = p.in_channels // p.groups, p.out_channels // p.groups
    for channel in range(p.out_channels):
        block, lane = divmod(channel, p.out_block)
        first = channel // per_group_out * per_group_in - p.first_block(block) * p.lanes
        column = packed[block, ..., lane].transpose(0, 3, 1, 2).reshape(-1, *p.kernel)
        column[first : first + per_group_in] = weight[channel]
        packed[block, ..., lane] = column.reshape(p.span, p.lanes, *p.kernel).transpose(0, 2, 3, 1)
    return packed


def choose_knobs(problem: Conv2d, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count; tasks whose input stays in the second-level cache."""
    p = problem
    vectors, pixels = best_tile((p.out_blocks, p.line), p.depth, vector, _heights(p))
    lines = tile_count(cut(p.line, pixels)) if p.is_flat else p.out_height
    flops = 2.0 * p.batch * p.out_blocks * p.out_block * p.out_height * p.out_width * p.depth
    tasks = min(MOST_TASKS, max(1, round(flops / TASK_FLOPS)))
    row_parts = _row_parts(p, pixels, lines, -(-tasks // p.batch))
    channel_parts = min(-(-tasks // (p.batch * row_parts)), tile_count(cut(p.out_blocks, vectors)))
    return Knobs(vectors, pixels, row_parts, channel_parts)


def _heights(p: Conv2d) -> tuple[int, ...]:
    """Numbers of out-channel blocks that a tile may have: all of them must read the same input."""
    if p.groups == 1:
        return HEIGHTS
    blocks, rest = divmod(p.out_channels // p.groups, p.out_block)
    return (1,) if rest else tuple(v for v in HEIGHTS if blocks % v == 0)


def _row_parts(p: Conv2d, pixels: int, lines: int, tasks: int) -> int:
    """Parts with as many lines as the cache holds; more of them if tasks are wanted and a part keeps a few lines."""
    line_bytes = 4 * p.in_blocks * p.lanes * (pixels if p.is_flat else p.width * p.stride[0])
    fitting = max(1, SCRATCH_BYTES // line_bytes)
    shared = max(-(-lines // tasks), FEWEST_LINES)
    return -(-lines // min(fitting, shared, lines))


def schedule(sch: Any, problem: Conv2d, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    write_nest(sch, Nest(problem, vector, knobs, take_apart(sch)).build())

"""Channels in blocks and in groups: which of the data a channel of the result depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.strips import GroupBlocks
from lvc.backends.tvm.nest import Buffer, Expr, load


@dataclass(frozen=True)
class Channels:
    """The channels of a convolution. Data is in blocks of ``in_block`` channels, plain where that is 0.

    The reduction goes through the data of a group by units: whole blocks, or where groups do not begin with blocks such
    parts of blocks as they do begin with. A unit is so many whole words of the ``operand``; where a group begins within
    a word, what is of its neighbours meets zeros among the packed weights.
    """

    inputs: int
    outputs: int
    groups: int
    in_block: int
    out_block: int
    operand: DotOperand = FLOAT32

    @cached_property
    def lanes(self) -> int:
        """Channels in a block of the data; 1 for plain data."""
        return self.in_block or 1

    @cached_property
    def unit(self) -> int:
        """Channels in a unit."""
        if self.groups == 1:
            return self.lanes
        return max(math.gcd(self.lanes, self.group[0]), self.operand.elements)

    @cached_property
    def words(self) -> int:
        """Words in a unit: steps of the reduction."""
        return self.unit // self.operand.elements

    @cached_property
    def in_blocks(self) -> int:
        """Blocks of the data."""
        return -(-self.inputs // self.lanes)

    @cached_property
    def block_words(self) -> int:
        """Words in a block of the data."""
        return self.lanes // self.operand.elements

    @cached_property
    def out_blocks(self) -> int:
        """Blocks of the result."""
        return self.result.count

    @cached_property
    def group(self) -> tuple[int, int]:
        """Input and output channels of a group."""
        return self.inputs // self.groups, self.outputs // self.groups

    @cached_property
    def result(self) -> GroupBlocks:
        """The blocks of the result."""
        return GroupBlocks(self.outputs, self.groups, self.out_block)

    @cached_property
    def span(self) -> int:
        """Units of the data that a group has, at most."""
        inputs = self.group[0]
        return max(-(-(g + 1) * inputs // self.unit) - g * inputs // self.unit for g in range(self.groups))

    def first_unit(self, group: Expr) -> Expr:
        """The first of the ``span`` units of a group."""
        if self.groups == 1:
            return 0
        each, rest = divmod(self.group[0], self.unit)
        if not rest:
            return group * each
        first, last = group * self.group[0] // self.unit, self.in_blocks * self.lanes // self.unit - self.span
        return min(first, last) if isinstance(first, int) else tirx.min(first, last)

    def place(self, unit: Expr, word: Expr, words: int) -> tuple[Expr, Expr]:
        """The block of the data that a unit is in, and the place there of what has a place among its so many words."""
        each = self.lanes // self.unit
        return (unit, word) if each == 1 else (unit // each, unit % each * words + word)

    def place_of(self, block: Expr, lane: Expr, other: Channels) -> tuple[Expr, Expr]:
        """The unit and the place in it of what has this place where the same channels lie in other blocks."""
        if other.unit == self.unit:
            return block, lane
        channel = block * other.unit + lane
        return tirx.floordiv(channel, self.unit), tirx.floormod(channel, self.unit)

    def source(self, out_block: Expr, lane: Expr, unit: Expr, channel: Expr) -> tuple[Expr, Expr]:
        """The block of the data and the lane there of what an output meets at a channel of a unit of its group."""
        if self.groups == 1:
            return unit, channel
        group = tirx.min(tirx.floordiv(out_block * self.out_block + lane, self.group[1]), self.groups - 1)
        return self.place(self.first_unit(group) + unit, channel, self.unit)

    def read(self, data: Buffer, image: Expr, unit: Expr, *place: Expr) -> Expr:
        """Load words of the data that lie side by side in a unit: ``place`` is their row, their column, the number of
        the first in the unit and how many there are, one if not said."""
        row, column, word, *count = place
        if not self.in_block:
            return load(data, [image, unit, row, column])
        block, word = self.place(unit, word, self.words)
        return self.operand.load_words(data, [image, block, row, column, word], *count)

    def packed_shape(self, kernel: tuple[int, int]) -> tuple[int, ...]:
        """The shape of packed weights: ``[out blocks, span, KH, KW, words, out_block]``."""
        return (self.out_blocks, self.span, *kernel, self.words, self.out_block)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Put weights ``[O, C/groups, KH, KW]`` in the order of their use, zeros where nothing is connected."""
        kernel = weight.shape[2:]
        dense = np.zeros((self.out_blocks * self.out_block, self.span * self.unit, *kernel), weight.dtype)
        inputs, outputs = self.group
        for group in range(self.groups):
            first = group * inputs - self.first_unit(group) * self.unit
            rows = slice(group * outputs, (group + 1) * outputs)
            dense[rows, first : first + inputs] = weight[rows]
        blocks = dense.reshape(self.out_blocks, self.out_block, self.span, self.unit, *kernel)
        return self.operand.pack(np.ascontiguousarray(blocks.transpose(0, 2, 4, 5, 3, 1)), -2)

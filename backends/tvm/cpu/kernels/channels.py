"""Channels in blocks and in groups: which blocks of the data a block of the result depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS
from lvc.backends.tvm.nest import Buffer, Expr, load


@dataclass(frozen=True)
class Channels:
    """The channels of a convolution. Data is in blocks of ``in_block`` channels, plain where that is 0.

    A block of the result is computed from a run of ``span`` blocks of the data. Where groups are narrower than blocks
    that run holds channels of other groups too, which meet zeros among the packed weights. A block is so many whole
    words of the ``operand``.
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
    def words(self) -> int:
        """Words in a block of the data: steps of the reduction."""
        return self.lanes // self.operand.elements

    @cached_property
    def in_blocks(self) -> int:
        """Blocks of the data."""
        return -(-self.inputs // self.lanes)

    @cached_property
    def out_blocks(self) -> int:
        """Blocks of the result."""
        return -(-self.outputs // self.out_block)

    @cached_property
    def group(self) -> tuple[int, int]:
        """Input and output channels of a group."""
        return self.inputs // self.groups, self.outputs // self.groups

    @cached_property
    def span(self) -> int:
        """Blocks of the data that one block of the result depends on, at most."""
        return max(self._end(o) - int(self._first(o)) for o in range(self.out_blocks))

    @cached_property
    def heights(self) -> tuple[int, ...]:
        """Numbers of blocks of the result that one register tile may hold: all must depend on the same data."""
        if self.groups == 1:
            return HEIGHTS
        blocks, rest = divmod(self.group[1], self.out_block)
        return (1,) if rest else tuple(v for v in HEIGHTS if blocks % v == 0)

    def first_block(self, out_block: Expr) -> Expr:
        """The first of the ``span`` blocks that a block of the result depends on."""
        if self.groups == 1:
            return 0
        first, last = self._first(out_block), self.in_blocks - self.span
        if all(self._first(o) <= last for o in range(self.out_blocks)):
            return first
        return min(first, last) if isinstance(first, int) else tirx.min(first, last)

    def place_of(self, block: Expr, lane: Expr, other: Channels) -> tuple[Expr, Expr]:
        """The block and the lane of what has this place where the same channels lie in other blocks."""
        if other.lanes == self.lanes:
            return block, lane
        channel = block * other.lanes + lane
        return tirx.floordiv(channel, self.lanes), tirx.floormod(channel, self.lanes)

    def read(self, data: Buffer, image: Expr, block: Expr, *place: Expr) -> Expr:
        """Load words of the data that lie side by side in a block: ``place`` is their row, their column, the number of
        the first in the block and how many there are, one if not said."""
        row, column, word, *count = place
        if not self.in_block:
            return load(data, [image, block, row, column])
        return self.operand.load_words(data, [image, block, row, column, word], *count)

    def packed_shape(self, kernel: tuple[int, int]) -> tuple[int, ...]:
        """The shape of packed weights: ``[out blocks, span, KH, KW, words, out_block]``."""
        return (self.out_blocks, self.span, *kernel, self.words, self.out_block)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Put weights ``[O, C/groups, KH, KW]`` in the order of their use, zeros where nothing is connected."""
        kernel = weight.shape[2:]
        dense = np.zeros((self.out_blocks, self.out_block, self.span * self.lanes, *kernel), weight.dtype)
        inputs, outputs = self.group
        if self.groups == 1:
            dense.reshape(-1, *dense.shape[2:])[: self.outputs, : self.inputs] = weight
        for channel in range(self.outputs if self.groups > 1 else 0):
            block, lane = divmod(channel, self.out_block)
            first = channel // outputs * inputs - self.first_block(block) * self.lanes
            dense[block, lane, first : first + inputs] = weight[channel]
        blocks = dense.reshape(self.out_blocks, self.out_block, self.span, self.lanes, *kernel)
        return self.operand.pack(np.ascontiguousarray(blocks.transpose(0, 2, 4, 5, 3, 1)), -2)

    def _first(self, out_block: Expr) -> Expr:
        return out_block * self.out_block // self.group[1] * self.group[0] // self.lanes

    def _end(self, out_block: int) -> int:
        last = min((out_block + 1) * self.out_block, self.outputs) - 1
        return -(-(last // self.group[1] + 1) * self.group[0] // self.lanes)

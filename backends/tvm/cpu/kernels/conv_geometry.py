"""A convolution as its nest sees it: what is computed, what of the data each task copies, and how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES
from lvc.backends.tvm.cpu.kernels.paired_rows import Slots
from lvc.backends.tvm.cpu.kernels.phases import Phase
from lvc.backends.tvm.nest import Expr


@dataclass(frozen=True)
class Geometry:
    """A convolution as its nest sees it: ``phases`` that differ in which outputs and taps they take.

    ``flat_width`` is set where an output pixel depends on the input pixel of the same place alone: then there is one
    row that holds the whole image, and this is the image's width. With a ``shift``, a block of the copied data has what
    follows so many columns on in place of more channels: the taps of a step.
    """

    batch: int
    channels: Channels
    phases: tuple[Phase, ...]
    flat_width: int | None = None
    shift: int = 0

    @cached_property
    def rows(self) -> int:
        """Rows of the largest phase."""
        return max(rows.outputs for rows, _ in self.phases)

    @cached_property
    def line(self) -> int:
        """Pixels in a row of the largest phase."""
        return max(columns.outputs for _, columns in self.phases)

    @cached_property
    def depth(self) -> int:
        """Steps of the reduction, those with zeros included, in the largest phase."""
        return self.channels.span * self.channels.words * max(rows.taps * columns.taps for rows, columns in self.phases)

    def margins(self, axis: int, outputs: int) -> tuple[int, int]:
        """The first element of the image that output 0 depends on, and how many elements so many outputs do."""
        reaches = [phase[axis].reach for phase in self.phases]
        first, last = min(reach[0] for reach in reaches), max(reach[1] for reach in reaches)
        return first, (outputs - 1) * self.phases[0][axis].stride + last - first + 1

    @cached_property
    def is_padded(self) -> bool:
        """Whether a window reaches out of the image."""
        return any(sweep.is_padded for phase in self.phases for sweep in phase)

    @cached_property
    def is_copied(self) -> bool:
        """Whether each task copies its part of the data first."""
        return self.is_padded or self.channels.operand.is_copied

    @cached_property
    def bytes(self) -> int:
        """Bytes of an image."""
        rows, columns = self.phases[0]
        return WORD_BYTES * self.channels.in_blocks * self.channels.block_words * rows.size * columns.size

    @cached_property
    def columns(self) -> Slots:
        """The places of the columns in a copy."""
        operand, stride = self.channels.operand, self.phases[0][1].stride
        neighbours = operand.neighbours
        return Slots(self.margins(1, -(-self.line // neighbours) * neighbours)[1], stride if neighbours > 1 else 1)

    def pixel(self, phase: Phase, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Where the result of a pixel belongs."""
        if self.flat_width is not None:
            return tirx.floordiv(column, self.flat_width), tirx.floormod(column, self.flat_width)
        rows, columns = phase
        return row * rows.out[1] + rows.out[0], column * columns.out[1] + columns.out[0]

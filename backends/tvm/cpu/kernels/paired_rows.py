"""Copies of operands in which what an instruction takes of two scalars lies side by side, for products of matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES, DotOperand
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, grid, load, loop, splat, store

COPY_RATE = 16  # bytes a cycle
_PIXELS = 4  # at once, where they are neighbours


@dataclass(frozen=True)
class Slots:
    """Places for so many ``columns`` of an image, by what they leave divided by a ``stride``: the columns in which
    neighbouring outputs meet a tap are neighbours."""

    columns: int
    stride: int

    @property
    def each(self) -> int:
        """Places for columns that leave the same."""
        return -(-self.columns // self.stride)

    @property
    def count(self) -> int:
        """All places."""
        return self.each * self.stride

    def of(self, column: Expr) -> Expr:
        """That of a column."""
        if self.stride == 1:
            return column
        return tirx.floormod(column, self.stride) * self.each + tirx.floordiv(column, self.stride)


@dataclass(frozen=True)
class PairedImage:
    """Fills ``copy`` ``[blocks, rows, slots, elements]`` with the part of an ``image`` of blocked ``data``
    ``[N, blocks, H, W, elements]`` that begins at a ``corner``, a row and a column; what stands for zero is where it
    reaches out of the image, which has a ``size``. A block of the copy has the elements of one or more of the data;
    from element ``offset`` on, so many as ``count``."""

    copy: Buffer
    data: Buffer
    image: Expr
    corner: tuple[Expr, int]
    size: tuple[int, int]
    slots: Slots
    operand: DotOperand
    offset: int = 0
    count: int = 0

    @property
    def _elements(self) -> int:
        return self.count or int(self.copy.shape[-1])

    @property
    def _merged(self) -> int:
        return self._elements // int(self.data.shape[-1])

    def fill(self, shift: int = 0) -> Stmt:
        """All of it; with a ``shift``, a place has so many columns on what follows after its own column, in place of
        the channels that follow."""
        if shift:
            (top, left), count = self.corner, int(self.data.shape[-1])
            columns = [(top, left + part * shift) for part in range(self._merged)]
            pieces = [replace(self, corner=c, offset=part * count, count=count) for part, c in enumerate(columns)]
            return block(*(piece.fill() for piece in pieces))
        blocks, rows, *_ = (int(extent) for extent in self.copy.shape)
        here = int(self.data.shape[1])
        whole, rest = divmod(here, self._merged)
        parts = [grid((whole, rows), lambda number, row: self._row(number, row, self._merged))] if whole else []
        if whole < blocks:
            parts.append(loop(rows, lambda row: self._row(whole, row, rest)))
        return block(*parts)

    def _row(self, number: Expr, row: Expr, parts: int) -> Stmt:
        """A row of a block, for which so many blocks of the data are there."""
        top = self.corner[0]
        inside = tirx.all(top + row >= 0, top + row < self.size[0])
        phases = range(self.slots.stride)
        filled = block(*(self._phase(number, row, phase, parts) for phase in phases))
        return tirx.IfThenElse(inside, filled, self._blank(number, row, 0, self.slots.count))

    def _blank(self, number: Expr, row: Expr, start: int, stop: int, first: int = 0) -> Stmt:
        """What stands for zero, in the elements from ``first`` on."""
        lanes, first = self._elements - first, self.offset + first
        blank = splat(tirx.const(self.operand.converted_padding, self.copy.dtype), lanes)
        return loop(stop - start, lambda slot: store(self.copy, blank, [number, row, slot, first], lanes), start=start)

    def _phase(self, number: Expr, row: Expr, phase: int, parts: int) -> Stmt:
        """The columns of a row that leave as much divided by the stride."""
        slots, left, width = self.slots, self.corner[1] + phase, self.size[1]
        begin = phase * slots.each
        first = min(max(-(left // slots.stride), 0), slots.each)
        end = max(min(-(-(width - left) // slots.stride), slots.each), first)
        found = []
        if first:
            found.append(self._blank(number, row, begin, begin + first))
        if end < slots.each:
            found.append(self._blank(number, row, begin + end, begin + slots.each))
        pixels = _PIXELS if slots.stride == 1 and not self.count else 1
        turns, rest = divmod(end - first, pixels)
        if turns:
            found.append(loop(turns, lambda i: self._pixels(number, row, (phase, i * pixels + first), pixels, parts)))
        found += [self._pixels(number, row, (phase, end - rest + i), 1, parts) for i in range(rest)]
        if parts < self._merged and end > first:
            elements = int(self.data.shape[-1]) * parts
            found.append(self._blank(number, row, begin + first, begin + end, elements))
        return block(*found) if found else tirx.Evaluate(0)

    def _pixels(self, number: Expr, row: Expr, slot: tuple[int, Expr], pixels: int, parts: int) -> Stmt:
        """So many neighbouring pixels."""
        phase, place = slot
        column = place * self.slots.stride + (phase + self.corner[1])
        elements, place = int(self.data.shape[-1]), place + phase * self.slots.each

        def read(part: int, lanes: int) -> Expr:
            index = [self.image, number * self._merged + part, self.corner[0] + row, column, 0]
            return self.operand.convert(load(self.data, index, lanes))

        if pixels == 1 or self._merged == 1:
            lanes = elements * pixels
            return block(
                *(
                    store(self.copy, read(part, lanes), [number, row, place, self.offset + part * elements], lanes)
                    for part in range(parts)
                )
            )
        if parts < self._merged:
            return block(*(self._pixels(number, row, (phase, slot[1] + i), 1, parts) for i in range(pixels)))
        return self._interleaved([read(part, elements * pixels) for part in range(parts)], [number, row, place, 0])

    def _interleaved(self, values: list[Expr], index: list[Expr]) -> Stmt:
        """The words of several vectors by turns."""
        size = tirx.const(0, self.copy.dtype).ty.dtype.itemsize
        lanes = values[0].ty.dtype.lanes
        words = lanes * size // WORD_BYTES
        parts = [tirx.reinterpret(f"int32x{words}", value) for value in values]
        order = [tirx.const(part * words + i, "int32") for i in range(words) for part in range(len(parts))]
        whole = tirx.reinterpret(f"{self.copy.dtype}x{lanes * len(parts)}", tirx.Shuffle(parts, order))
        return store(self.copy, whole, index, lanes * len(parts))


@dataclass(frozen=True)
class PairedRows:
    """Fills ``pairs`` ``[pairs, steps, elements]`` with rows of ``data`` ``[.., size]``, which is at ``place`` in its
    outer dimensions: the first with the second, the third with the fourth and so on, the last one with itself if it is
    left over; zeros past the end of a row."""

    pairs: Buffer
    data: Buffer
    place: tuple[Expr, ...]
    size: int
    operand: DotOperand

    def fill(self, first: Expr, count: int) -> Stmt:
        """So many rows from the first on."""
        return block(
            *(
                self._pair(number, [first + 2 * number, first + min(2 * number + 1, count - 1)])
                for number in range(-(-count // 2))
            )
        )

    def _pair(self, number: int, rows: list[Expr]) -> Stmt:
        depth = self.operand.depth
        steps, rest = divmod(self.size, depth)
        turns, left = divmod(steps, 2)

        def two(turn: Expr) -> Stmt:
            values = [load(self.data, [*self.place, row, turn * 2 * depth], 2 * depth) for row in rows]
            words = [tirx.reinterpret("int32x4", value) for value in values]
            order = [tirx.const(i, "int32") for i in (0, 1, 4, 5, 2, 3, 6, 7)]
            both = tirx.reinterpret(f"{self.data.dtype}x{4 * depth}", tirx.Shuffle(words, order))
            return store(self.pairs, both, [number, turn * 2, 0], 4 * depth)

        found = [loop(turns, two)] if turns else []
        for side, row in enumerate(rows):
            if left:
                value = load(self.data, [*self.place, row, turns * 2 * depth], depth)
                found.append(store(self.pairs, value, [number, turns * 2, side * depth], depth))
            for i in range(depth if rest else 0):
                value = load(self.data, [*self.place, row, steps * depth + i]) if i < rest else _zero(self.data)
                found.append(store(self.pairs, value, [number, steps, side * depth + i]))
        return block(*found)


def _zero(data: Buffer) -> Expr:
    return tirx.const(0, data.dtype)

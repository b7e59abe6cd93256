"""Ranks: integers that say where keys stand in an order, and the selection of those that stand first.

Integers are compared in one step, NaN among the keys or not, and counted a vector at a time. That is what selecting is:
the rank that just as many reach as are wanted is found bit by bit, from the highest to the lowest, by counting.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.comparisons import is_float
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, int32, load, loop, scratch, splat, store

_INFINITY = {"int32": 0x7F800000, "int64": 0x7FF0000000000000}
"""The bits of infinity in a floating-point number of that width."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of a row of ``size`` keys, in memory up to whole vectors: of two keys the one of greater rank stands
    first, and equal keys have the same. NaN is greater than any number."""

    buffer: Buffer
    size: int
    lanes: int

    @classmethod
    def of(cls, dtype: str, size: int, lanes: int) -> Ranks:
        bits = int("".join(filter(str.isdigit, dtype)))
        kind = "int64" if bits > 32 or dtype == "uint32" else "int32"
        return cls(scratch((-(-size // lanes) * lanes,), "ranks", kind), size, lanes)

    @property
    def kind(self) -> str:
        return str(self.buffer.dtype)

    @property
    def _bits(self) -> int:
        return int(self.kind.removeprefix("int"))

    def _number(self, value: int, lanes: int = 1) -> Expr:
        return splat(tirx.const(value, self.kind), lanes)

    def __getitem__(self, place: Expr) -> Expr:
        return load(self.buffer, [place])

    def fill(self, keys: Buffer, row: Expr, descending: bool) -> Stmt:
        """Write the ranks of a row of keys; behind them the least there is."""
        whole = self.size // self.lanes
        least = self._number(-(1 << (self._bits - 1)))

        def write(place: Expr, lanes: int) -> Stmt:
            return store(self.buffer, self._rank(load(keys, [row, place], lanes), descending, lanes), [place], lanes)

        vectors = [loop(whole, lambda i: write(i * self.lanes, self.lanes))] if whole else []
        if whole * self.lanes == self.size:
            return block(*vectors)
        rest, behind = self.size - whole * self.lanes, int(self.buffer.shape[0]) - self.size
        return block(
            *vectors,
            loop(rest, lambda i: write(whole * self.lanes + i, 1)),
            loop(behind, lambda i: store(self.buffer, least, [self.size + i])),
        )

    def _rank(self, key: Expr, descending: bool, lanes: int) -> Expr:
        order = self._order(key, lanes) if is_float(key) else tirx.Cast(_lanes(self.kind, lanes), key)
        return order if descending else self._number(-1, lanes) - order

    def _order(self, key: Expr, lanes: int) -> Expr:
        """Floating-point numbers are their sign and their size as an integer; there is one zero and one NaN."""
        bits = tirx.reinterpret(_lanes(self.kind, lanes), key)
        size = bits & self._number((1 << (self._bits - 1)) - 1, lanes)
        signed = tirx.Select(bits < self._number(0, lanes), self._number(0, lanes) - size, size)
        is_number = size <= self._number(_INFINITY[self.kind], lanes)
        return tirx.Select(is_number, signed, self._number((1 << (self._bits - 1)) - 1, lanes))

    def select(self, found: Buffer, most: int) -> Stmt:
        """Write the places of the ``most`` keys that stand first, of equal ones those before, in the row's order."""
        limit, counts = scratch((1,), "limit", self.kind), scratch((self.lanes,), "counts", self.kind)
        heads = scratch((2,), "heads", "int32")
        bound, taken, ties = load(limit, [0]), load(heads, [0]), load(heads, [1])
        trial = scratch((1,), "trial", self.kind)

        def try_bit(i: Expr) -> Stmt:
            bit = self._number(1) << (self._number(self._bits - 1) - tirx.Cast(self.kind, i))
            return block(
                store(trial, bound ^ bit, [0]),
                self._count(counts, load(trial, [0]), "reach"),
                tirx.IfThenElse(_total(counts) >= most, store(limit, load(trial, [0]), [0]), None),
            )

        def take(i: Expr) -> Stmt:
            at_limit = tirx.EQ(self[i], bound)
            chosen = block(store(found, i, [taken]), store(heads, taken + 1, [0]))
            tied = tirx.IfThenElse(ties > 0, block(store(heads, ties - 1, [1]), chosen), None)
            return tirx.IfThenElse(self[i] > bound, chosen, tirx.IfThenElse(at_limit, tied, None))

        return allocate(
            [limit, counts, heads, trial],
            store(limit, self._number(-(1 << (self._bits - 1))), [0]),
            loop(self._bits, try_bit, name="bit"),
            self._count(counts, bound, "exceed"),
            store(heads, int32(0), [0]),
            store(heads, int32(most) - tirx.Cast("int32", _total(counts)), [1]),
            loop(self.size, take),
        )

    def divide(self, found: Buffer, counted: Buffer) -> Stmt:
        """Write the places of all keys but those that stand last and are equal, and then of these, as they lie in the
        row; ``counted`` says how many the former are."""
        lowest, counts = scratch((1,), "lowest", self.kind), scratch((self.lanes,), "counts", self.kind)
        heads, bound = scratch((2,), "heads", "int32"), load(lowest, [0])

        def put(i: Expr, head: int) -> Stmt:
            place = load(heads, [head])
            return block(store(found, int32(i), [place]), store(heads, place + 1, [head]))

        return allocate(
            [lowest, counts, heads],
            store(lowest, self[0], [0]),
            loop(self.size, lambda i: store(lowest, tirx.min(bound, self[i]), [0])),
            self._count(counts, bound, "exceed"),
            store(counted, tirx.Cast("int32", _total(counts)), [0]),
            store(heads, int32(0), [0]),
            store(heads, load(counted, [0]), [1]),
            loop(self.size, lambda i: tirx.IfThenElse(self[i] > bound, put(i, 0), put(i, 1))),
        )

    def _count(self, counts: Buffer, bound: Expr, how: str) -> Stmt:
        """Count in each lane the ranks that reach or exceed a bound."""
        none, one = self._number(0, self.lanes), self._number(1, self.lanes)

        def count(i: Expr) -> Stmt:
            ranks, limit = load(self.buffer, [i * self.lanes], self.lanes), splat(bound, self.lanes)
            is_above = ranks >= limit if how == "reach" else ranks > limit
            return store(counts, load(counts, [0], self.lanes) + tirx.Select(is_above, one, none), [0], self.lanes)

        return block(
            store(counts, none, [0], self.lanes), loop(int(self.buffer.shape[0]) // self.lanes, count, name="vector")
        )


def _total(counts: Buffer) -> Expr:
    total = load(counts, [0])
    for lane in range(1, int(counts.shape[0])):
        total = total + load(counts, [lane])
    return total


def _lanes(kind: str, lanes: int) -> str:
    return f"{kind}x{lanes}" if lanes > 1 else kind

"""Sorting and writing at computed places: loops whose steps wait for one another.

Rows are shared out among threads; a row is one thread's. The sort merges from the bottom up, which is stable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import te, tirx

from lvc.backends.tvm.comparisons import is_float, is_number, truth, untruth
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, int32, load, loop, scratch, store, tasks
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.ranks import Ranks
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array
from lvc.compiler.ir.operators import ordering

Row = Callable[..., Stmt]


def by_rows(call: Call, operands: Sequence[Array], dtype: str, row: Row) -> Array:
    """An array that ``row(number, output, *inputs)`` writes row by row; all buffers are rows of elements."""
    rows, size = math.prod(call.shape[:-1]), call.shape[-1]
    inputs = []
    for operand in operands:
        length = math.prod(operand.shape) // rows
        flat = reshape_array(call.scope, operand, (rows, length))
        inputs.append(call.scope.tensor((rows, length), flat.read))
    call.scope.has_lookups = True

    def body(given: Sequence[Buffer], made: Sequence[Buffer]) -> Stmt:
        return tasks((rows,), lambda number: row(number, made[0], *given))

    tensor = te.extern((rows, size), inputs, body, f"{call.node.name}_rows", dtype)
    return reshape_array(call.scope, call.scope.leaf(tensor, (rows, size), PLAIN), call.shape)


@lowers(ordering.argsort)
def argsort(call: Call) -> Array:
    """Runs of twice the length are merged of two, until one is left; the one from the left goes first among equals.

    Where only the first few are wanted, they are selected before they are sorted. Otherwise those keys that are equal
    and last, as scores below a threshold are, are put last and left alone.
    """
    x, descending = call["x"], call["descending"]
    size, most = x.shape[-1], call.shape[-1]
    if x.dtype == "bool":
        return by_rows(call, [x], "int64", _divided(size, most, descending))
    widths = [1 << power for power in range((most - 1).bit_length())]
    ranks = Ranks.of(x.dtype, size, call.scope.lanes)

    def row(number: Expr, output: Buffer, keys: Buffer) -> Stmt:
        order = [scratch((most,), f"order{i}", "int32") for i in range(2)]
        heads, counted = scratch((2,), "heads", "int32"), scratch((1,), "counted", "int32")
        count = load(counted, [0])

        def merged(source: Buffer, target: Buffer, width: int) -> Stmt:
            def step(t: Expr) -> Stmt:
                base = tirx.floordiv(t, 2 * width) * (2 * width)
                middle, end = tirx.min(base + width, count), tirx.min(base + 2 * width, count)
                left, right = load(heads, [0]), load(heads, [1])
                first, second = (load(source, [tirx.min(head, count - 1)]) for head in (left, right))
                takes_right = tirx.all(right < end, tirx.any(left >= middle, ranks[second] > ranks[first]))
                start = block(store(heads, base, [0]), store(heads, middle, [1]))
                return block(
                    tirx.IfThenElse(tirx.EQ(t, base), start, None),
                    tirx.IfThenElse(
                        takes_right,
                        block(store(target, second, [t]), store(heads, right + 1, [1])),
                        block(store(target, first, [t]), store(heads, left + 1, [0])),
                    ),
                )

            return loop(count, step, name="t")

        def written(source: Buffer) -> Callable[[Expr], Stmt]:
            return lambda i: store(output, tirx.Cast("int64", load(source, [i])), [number, i])

        few = block(ranks.select(order[0], most), store(counted, int32(most), [0]))
        passes = [merged(order[i % 2], order[(i + 1) % 2], width) for i, width in enumerate(widths)]
        last = order[len(widths) % 2]
        return allocate(
            [ranks.buffer, *order, heads, counted],
            ranks.fill(keys, number, descending),
            few if most < size else ranks.divide(order[0], counted),
            *passes,
            loop(count, written(last)),
            loop(int32(most) - count, written(order[0]), start=count),
        )

    return by_rows(call, [x], "int64", row)


def _divided(size: int, most: int, descending: bool) -> Row:
    """The order of truth values: those of one kind, then those of the other, each as they stand."""

    def row(number: Expr, output: Buffer, keys: Buffer) -> Stmt:
        heads = scratch((2,), "heads", "int32")

        def is_first(i: Expr) -> Expr:
            found = load(keys, [number, i])
            return found if descending else untruth(found)

        def put(i: Expr, kind: int) -> Stmt:
            place = load(heads, [kind])
            written = store(output, tirx.Cast("int64", i), [number, place])
            if most < size:
                written = tirx.IfThenElse(place < most, written, None)
            return block(written, store(heads, place + 1, [kind]))

        return allocate(
            [heads],
            block(store(heads, int32(0), [0]), store(heads, int32(0), [1])),
            loop(size, lambda i: store(heads, load(heads, [1]) + tirx.Cast("int32", is_first(i)), [1])),
            loop(size, lambda i: tirx.IfThenElse(is_first(i), put(i, 0), put(i, 1))),
        )

    return row


@lowers(ordering.scatter)
def scatter(call: Call) -> Array:
    """The old elements, then one update after the other."""
    size, count = call.shape[-1], call["index"].shape[-1]
    combine = combination(call)

    def row(number: Expr, output: Buffer, old: Buffer, index: Buffer, updates: Buffer) -> Stmt:
        def update(i: Expr) -> Stmt:
            place = tirx.Cast("int32", load(index, [number, i]))
            place = tirx.max(tirx.min(place, size - 1), 0)
            return store(output, combine(load(output, [number, place]), load(updates, [number, i])), [number, place])

        return block(
            loop(size, lambda i: store(output, load(old, [number, i]), [number, i])),
            loop(count, update),
        )

    return by_rows(call, [call["x"], call["index"], call["updates"]], call.dtype, row)


def combination(call: Call) -> Callable[[Expr, Expr], Expr]:
    """What a scatter makes of an old element and a new one."""
    return (_OF_TRUTH if call.dtype == "bool" else _OF_NUMBERS)[call["reduce"]]


def _extreme(old: Expr, new: Expr, choose: Callable[[Expr, Expr], Expr]) -> Expr:
    """The larger or smaller of two, NaN where one of them is."""
    if not is_float(old):
        return choose(old, new)
    return tirx.Select(truth(is_number(new)), tirx.Select(truth(is_number(old)), choose(old, new), old), new)


_OF_NUMBERS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "none": lambda _, new: new,
    "sum": lambda old, new: old + new,
    "prod": lambda old, new: old * new,
    "amax": lambda old, new: _extreme(old, new, tirx.max),
    "amin": lambda old, new: _extreme(old, new, tirx.min),
}
_OF_TRUTH = {"none": _OF_NUMBERS["none"]} | {"sum": tirx.any, "amax": tirx.any, "prod": tirx.all, "amin": tirx.all}

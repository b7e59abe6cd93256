"""Sorting, writing at computed places and non-maximum suppression by many threads, each without waiting for others but
where boxes strike out boxes.

A place in the order is the number of elements that stand before an element: each thread counts those of one. What is
written at a place is what all updates make of it in their order: each thread looks at all of them for one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import te, tirx

from lvc.backends.tvm.comparisons import is_float, is_number, truth, untruth
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.gpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.launch import barrier, local, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import PARALLEL, Buffer, Expr, Stmt, allocate, block, int32, load, loop, store
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.ordering import combination
from lvc.backends.tvm.ops.suppression import threshold_of
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import scalar_of
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import ordering

THREADS = 128
Body = Callable[..., Stmt]


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For the three of them."""
    if is_call(call.node, ordering.argsort):
        return _anchor(call, ("x",), "int64", _of_elements(call, _rank))
    if is_call(call.node, ordering.scatter):
        return _anchor(call, ("x", "index", "updates"), call.dtype, _of_elements(call, _updated))
    if is_call(call.node, ordering.nms):
        groups = ("groups",) if call["groups"] is not None else ()
        return _anchor(call, ("boxes", "valid", *groups), "bool", _struck(call))
    return None


def _anchor(call: Call, names: Sequence[str], dtype: str, nest: Body) -> Anchor:
    """A kernel that writes rows of elements; all its buffers are such."""
    rows, size = math.prod(call.shape[:-1]), call.shape[-1]
    inputs = []
    for name in names:
        length = math.prod(call[name].shape) // rows
        flat = reshape_array(call.scope, call[name], (rows, length))
        inputs.append(call.scope.tensor((rows, length), flat.read))
    call.scope.has_lookups = True

    def body(given: Sequence[Buffer], made: Sequence[Buffer]) -> Stmt:
        return nest(made[0], *given)

    tensor = te.extern((rows, size), inputs, body, f"{call.node.name}_rows", dtype)
    array = reshape_array(call.scope, call.scope.leaf(tensor, (rows, size), PLAIN), call.shape)
    return Anchor(array, GeneralSchedule(apart=True))


def launched(blocks: int, threads: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
    """Loops over blocks and their threads, which `lvc.backends.tvm.gpu.stages.Nest` launches."""
    number, thread = tirx.Var("number", "int32"), tirx.Var("member", "int32")
    inner = tirx.For(thread, int32(0), int32(threads), PARALLEL, body(number, thread))
    return tirx.For(number, int32(0), int32(blocks), PARALLEL, inner)


def _of_elements(call: Call, element: Callable[..., Stmt]) -> Body:
    """A thread for each element of ``x``."""
    rows, size = math.prod(call.shape[:-1]), call["x"].shape[-1]
    total = rows * size

    def nest(output: Buffer, *given: Buffer) -> Stmt:
        def body(number: Expr, thread: Expr) -> Stmt:
            flat = number * THREADS + thread
            made = element(call, (tirx.floordiv(flat, size), tirx.floormod(flat, size)), output, *given)
            return when(True if total % THREADS == 0 else flat < total, made)

        return launched(-(-total // THREADS), THREADS, body)

    return nest


def _rank(call: Call, place: tuple[Expr, Expr], output: Buffer, keys: Buffer) -> Stmt:
    """Count those that stand before an element: smaller ones, or larger, and equal ones on its left. Of many it writes
    the first few where no more are wanted."""
    (row, own), size, descending, rank = place, call["x"].shape[-1], call["descending"], local([1], "rank", "int32")

    def key(position: Expr) -> Expr:
        found = load(keys, [row, position])
        return tirx.Cast("int32", found) if call["x"].dtype == "bool" else found

    def count(other: Expr) -> Stmt:
        is_first = tirx.any(
            _before(key(other), key(own), descending),
            tirx.all(other < own, tirx.Not(_before(key(own), key(other), descending))),
        )
        return when(is_first, store(rank, load(rank, [0]) + 1, [0]))

    written = store(output, tirx.Cast("int64", own), [row, load(rank, [0])])
    most = call.shape[-1]
    is_wanted = load(rank, [0]) < most if most < size else True
    return allocate([rank], store(rank, int32(0), [0]), loop(size, count, name="other"), when(is_wanted, written))


def _before(a: Expr, b: Expr, descending: bool) -> Expr:
    """Whether ``a`` must stand before ``b``; NaN is greater than any number."""
    first = a > b if descending else a < b
    if not is_float(a):
        return first
    (a_nan, a_number), (b_nan, b_number) = ((untruth(is_number(key)), truth(is_number(key))) for key in (a, b))
    return tirx.any(first, tirx.all(a_nan, b_number) if descending else tirx.all(b_nan, a_number))


def _updated(call: Call, place: tuple[Expr, Expr], output: Buffer, *given: Buffer) -> Stmt:
    """Begin with what is there, and look at one update after the other."""
    (row, own), (old, index, updates) = place, given
    size, count, combine = call.shape[-1], call["index"].shape[-1], combination(call)
    made = local([1], "made", call.dtype)

    def look(i: Expr) -> Stmt:
        target = tirx.max(tirx.min(tirx.Cast("int32", load(index, [row, i])), size - 1), 0)
        update = store(made, combine(load(made, [0]), load(updates, [row, i])), [0])
        return when(tirx.EQ(target, own), update)

    return allocate(
        [made],
        store(made, load(old, [row, own]), [0]),
        loop(count, look, name="update"),
        store(output, load(made, [0]), [row, own]),
    )


def _overlap(call: Call, boxes: Buffer, row: Expr) -> Callable[[Expr, Expr], Expr]:
    """Whether two boxes of a row overlap by more than suppression allows."""

    def corner(box: Expr, which: int) -> Expr:
        return load(boxes, [row, box * 4 + which])

    def area(box: Expr) -> Expr:
        return (corner(box, 2) - corner(box, 0)) * (corner(box, 3) - corner(box, 1))

    def side(a: Expr, b: Expr, low: int) -> Expr:
        inner = tirx.min(corner(a, low + 2), corner(b, low + 2)) - tirx.max(corner(a, low), corner(b, low))
        return tirx.max(inner, scalar_of(0, call["boxes"].dtype))

    def overlap(a: Expr, b: Expr) -> Expr:
        shared = side(a, b, 0) * side(a, b, 1)
        return shared / (area(a) + area(b) - shared) > threshold_of(call)

    return overlap


def _struck(call: Call) -> Body:
    """A block for each row: of one box after the other that stays, all threads strike out what it overlaps."""
    rows, size = math.prod(call.shape[:-1]), call.shape[-1]

    def nest(output: Buffer, boxes: Buffer, valid: Buffer, *groups: Buffer) -> Stmt:
        def body(row: Expr, thread: Expr) -> Stmt:
            def each(work: Callable[[Expr], Stmt], condition: Callable[[Expr], Expr] | None = None) -> Stmt:
                def turn(number: Expr) -> Stmt:
                    j = number * THREADS + thread
                    conditions = ([j < size] if size % THREADS else []) + ([condition(j)] if condition else [])
                    return when(tirx.all(*conditions) if conditions else True, work(j))

                return loop(-(-size // THREADS), turn, name="turn")

            def look(i: Expr) -> Stmt:
                def strike(j: Expr) -> Stmt:
                    related = [tirx.EQ(load(group, [row, i]), load(group, [row, j])) for group in groups]
                    struck = when(_overlap(call, boxes, row)(i, j), store(output, tirx.const(False, "bool"), [row, j]))
                    return when(tirx.all(load(output, [row, j]), *related), struck)

                return block(when(load(output, [row, i]), each(strike, lambda j: j > i)), barrier())

            copied = each(lambda j: store(output, load(valid, [row, j]), [row, j]))
            return block(copied, barrier(), *([loop(size - 1, look, name="box")] if size > 1 else []))

        return launched(rows, THREADS, body)

    return nest

"""Non-maximum suppression: each box that stays is compared with a vector of those behind it at a time."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, int32, load, loop, scratch, splat, store, zeros
from lvc.backends.tvm.ops.ordering import by_rows
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, scalar_of
from lvc.compiler.ir.operators import ordering

_AREA = 4
"""The row behind those of the four corners."""


def _floor(number: float, dtype: str) -> float:
    """The greatest number of a type that is not greater: the same numbers of that type are above both."""
    near = np.dtype(dtype).type(number)
    return float(near if float(near) <= number else np.nextafter(near, -np.inf, dtype=dtype))


def threshold_of(call: Call) -> Expr:
    """What boxes overlap by more than."""
    dtype = call["boxes"].dtype
    return scalar_of(_floor(call["iou_threshold"], dtype), dtype)


@lowers(ordering.nms)
def nms(call: Call) -> Array:
    """Each box that stays strikes out those behind it that it overlaps, up to the last one that counts."""
    size, dtype, lanes = call.shape[-1], call["boxes"].dtype, call.scope.lanes
    padded = -(-size // lanes) * lanes
    threshold = splat(threshold_of(call), lanes)

    def row(number: Expr, output: Buffer, boxes: Buffer, valid: Buffer, *groups: Buffer) -> Stmt:
        corners = scratch((_AREA + 1, padded), "corners", dtype)
        stays = scratch((padded,), "stays", "int32")
        kinds = [scratch((padded,), "kinds", "int64") for _ in groups]
        end = scratch((1,), "end", "int32")
        whole = tirx.floordiv(load(end, [0]) + (lanes - 1), lanes) * lanes

        def mark(i: Expr) -> Stmt:
            counts = block(store(stays, int32(1), [i]), store(end, i + 1, [0]))
            return tirx.IfThenElse(load(valid, [number, i]), counts, store(stays, int32(0), [i]))

        def copy(i: Expr) -> Stmt:
            sides = [load(corners, [high, i]) - load(corners, [high - 2, i]) for high in (2, 3)]
            return block(
                *(store(corners, load(boxes, [number, i * 4 + which]), [which, i]) for which in range(4)),
                store(corners, sides[0] * sides[1], [_AREA, i]),
                *(store(kind, load(group, [number, i]), [i]) for kind, group in zip(kinds, groups, strict=True)),
            )

        def side(i: Expr, first: Expr, low: int) -> Expr:
            one = [splat(load(corners, [which, i]), lanes) for which in (low, low + 2)]
            others = [load(corners, [which, first], lanes) for which in (low, low + 2)]
            return tirx.max(tirx.min(one[1], others[1]) - tirx.max(one[0], others[0]), zeros(lanes, dtype))

        def strike(i: Expr, first: Expr) -> Stmt:
            shared = side(i, first, 0) * side(i, first, 1)
            areas = splat(load(corners, [_AREA, i]), lanes) + load(corners, [_AREA, first], lanes)
            before, gone = load(stays, [first], lanes), zeros(lanes, "int32")
            left = tirx.Select(shared / (areas - shared) > threshold, gone, before)
            for kind in kinds:
                is_other = tirx.NE(load(kind, [first], lanes), splat(load(kind, [i]), lanes))
                left = tirx.Select(is_other, before, left)
            behind = _places(first, lanes) > splat(i, lanes)
            return store(stays, tirx.Select(behind, left, before), [first], lanes)

        def look(i: Expr) -> Stmt:
            start = tirx.floordiv(i + 1, lanes)
            vectors = tirx.floordiv(whole, lanes) - start
            rest = loop(vectors, lambda vector: strike(i, vector * lanes), name="vector", start=start)
            return tirx.IfThenElse(tirx.EQ(load(stays, [i]), 1), rest, None)

        def empty(i: Expr) -> Stmt:
            cleared = [store(corners, scalar_of(0, dtype), [which, i]) for which in range(_AREA + 1)]
            return block(*cleared, *(store(kind, _NO_KIND, [i]) for kind in kinds))

        return allocate(
            [corners, stays, *kinds, end],
            store(end, int32(0), [0]),
            loop(size, mark),
            *([loop(padded - size, lambda i: store(stays, int32(0), [i]), start=size)] if padded > size else []),
            loop(load(end, [0]), copy),
            loop(whole - load(end, [0]), empty, start=load(end, [0])),
            *([loop(tirx.min(load(end, [0]), size - 1), look)] if size > 1 else []),
            loop(size, lambda i: store(output, tirx.EQ(load(stays, [i]), 1), [number, i])),
        )

    groups = [call["groups"]] if call["groups"] is not None else []
    return by_rows(call, [call["boxes"], call["valid"], *groups], "bool", row)


_NO_KIND = tirx.const(0, "int64")


def _places(first: Expr, lanes: int) -> Expr:
    return tirx.Ramp(int32(first), tirx.const(1, "int32"), lanes) if lanes > 1 else int32(first)

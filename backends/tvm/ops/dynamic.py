"""Rows in 8 bits with scales found as the model runs, each step as `lvc.compiler.ir.operators.dynamic` defines it."""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from lvc.backends.tvm.extremes import largest
from lvc.backends.tvm.ops.integer import quantise
from lvc.backends.tvm.ops.reductions import reduce
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, scalar_of
from lvc.compiler.ir.operators.dynamic import LARGEST, LEAST, SHARE, quantise_rows, row_scale


@lowers(row_scale)
def lower_row_scale(call: Call) -> Array:
    """The largest magnitude of each row, over 127."""
    operand: Array = call["x"]

    def magnitude(index: Index) -> Expr:
        return tirx.abs(operand.read(index))

    most = reduce(call.scope, operand.shape, magnitude, (len(operand.shape) - 1,), largest)
    least, share = scalar_of(LEAST, "float32"), scalar_of(SHARE, "float32")
    return call.result(lambda index: tirx.max(most.read(index), least) * share)


@lowers(quantise_rows)
def lower_quantise_rows(call: Call) -> Array:
    """Each element over the scale of its row, in integers."""
    operand, scale = call["x"], call["scale"]
    one = scalar_of(1, "float32")

    def steps(index: Index) -> Expr:
        return operand.read(index) * (one / scale.read([*index[:-1], 0]))

    parameters = {"scale": 1.0, "zero_point": 0, "low": -LARGEST, "high": LARGEST}
    return quantise(replace(call, operands={"x": Array(operand.shape, operand.dtype, steps), **parameters}))

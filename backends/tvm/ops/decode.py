"""Weights in few bits as arithmetic, for codes that are computed; of those that are stored kernels read the values."""

from __future__ import annotations

import math

from tvm import tirx

from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index
from lvc.compiler.ir.operators.coded_weights import DECODE


@lowers(DECODE)
def decode(call: Call) -> Array:
    """The value of each code times the scale of its group."""
    codes, values, scale, bits = call["codes"], call["values"], call["scale"], call["bits"]
    per_byte, count = 8 // bits, 1 << bits
    elements = math.prod(call.shape[1:])
    each = elements // scale.shape[1]

    def read(index: Index) -> Expr:
        place: Expr = 0
        for at, size in zip(index[1:], call.shape[1:], strict=True):
            place = place * size + at
        whole = index[0] * elements + place
        byte = tirx.Cast("int32", codes.read((whole // per_byte,)))
        code = (byte >> (whole % per_byte * bits)) & (count - 1)
        value = call.scope.lookup(code, count, lambda at: values.read((at,)))
        return value * scale.read((index[0], place // each))

    return call.result(read)

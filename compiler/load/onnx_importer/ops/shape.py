"""Shapes and constants: what is known while loading, and the branch that a known condition takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.values import (
    Constant,
    Unsupported,
    Value,
    check_size,
    constant,
    to_torch,
    torch_dtype,
)


@converts("Constant")
def stored(call: Call) -> Value:
    if "value" in call.attributes:
        value = to_torch(call.attributes["value"].values)
        return Constant(value, call.outputs[0], trainable=value.is_floating_point() and value.numel() > 1)
    for name, dtype in (("float", torch.float32), ("int", torch.int64)):
        for key in (f"value_{name}", f"value_{name}s"):
            if key in call.attributes:
                return constant(call.attributes[key], dtype)
    raise Unsupported("holds text or a sparse tensor")


@converts("Shape")
def shape(call: Call) -> Value:
    return constant(list(call.shape()[call.attribute("start", 0) : call.attribute("end")]))


@converts("Size")
def size(call: Call) -> Value:
    return constant(math.prod(call.shape()))


def _bounded(shape: Sequence[int], dtype: torch.dtype = torch.int64) -> list[int]:
    return list(check_size(TensorSpec(tuple(shape), dtype)).shape)


@converts("ConstantOfShape")
def constant_of_shape(call: Call) -> Value:
    given = call.attribute("value")
    fill = torch.zeros(1) if given is None else to_torch(given.values)
    return Constant(fill.reshape(()).expand(_bounded(call.ints(0, "shape"), fill.dtype)).clone())


@converts("Range")
def number_range(call: Call) -> Value:
    start, limit, delta = (call.tensor(i, name).item() for i, name in enumerate(("start", "limit", "delta")))
    dtype = call.dtype()
    count = max(math.ceil((limit - start) / delta), 0)
    _bounded([count], dtype)
    steps = torch.arange(count, dtype=torch.float64 if dtype.is_floating_point else torch.int64)
    return Constant((steps * delta + start).to(dtype))


@converts("EyeLike")
def eye_like(call: Call) -> Value:
    dtype = torch_dtype(int(call.attributes["dtype"])) if "dtype" in call.attributes else call.dtype()
    rows, columns = call.shape()
    _bounded([rows, columns])
    place = torch.arange(columns) - torch.arange(rows)[:, None]
    return Constant((place == int(call.attribute("k", 0))).to(dtype))


@converts("If")
def branch(call: Call) -> list[Value]:
    """The branch of a condition that is known while loading."""
    taken = "then_branch" if call.tensor(0, "condition").item() else "else_branch"
    return call.emitter.branch(call.attributes[taken], call)

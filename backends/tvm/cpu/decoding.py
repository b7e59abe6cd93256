"""Weights that are stored in few bits: what makes floating-point weights of them when a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.scope import Codes, Constant, Parameter, Prepared

Pack = Callable[[np.ndarray], np.ndarray]


def prepared(key: str, codes: Codes, shape: tuple[int, ...], pack: Pack) -> Prepared:
    """A weight in the order in which a kernel reads it, made of codes that are stored in that order.

    ``pack`` puts an array of the weight's shape into that order, with zeros where nothing is connected.
    """
    zero = int(np.flatnonzero(codes.values == 0)[0])
    scale, repeats = _narrowed(pack(codes.scale))
    count = -(-math.prod(shape) * codes.bits // 8)

    def packed_codes() -> np.ndarray:
        return _joined(pack(codes.code.astype(np.float32) - zero) + zero, codes.bits)

    sources = (
        Parameter(te.placeholder((count,), "uint8", "codes"), Constant(f"{key} codes", packed_codes)),
        Parameter(
            te.placeholder(codes.values.shape, "float32", "values"), Constant(f"{key} values", lambda: codes.values)
        ),
        Parameter(te.placeholder(scale.shape, "float32", "scale"), Constant(f"{key} scale", lambda: scale)),
    )
    function = _decode_function(tuple(shape), repeats, codes.bits)
    return Prepared(f"{key} decoded", sources, function, GeneralSchedule(apart=True))


@cache
def _decode_function(shape: tuple[int, ...], repeats: tuple[int, ...], bits: int) -> Any:
    """The TIR function ``values[code] * scale``, where each scale stands for so many places along each axis."""
    each = 8 // bits
    codes = te.placeholder((-(-math.prod(shape) * bits // 8),), "uint8", "codes")
    values = te.placeholder((1 << bits,), "float32", "values")
    counts = [size // repeat for size, repeat in zip(shape, repeats, strict=True)]
    scale = te.placeholder(counts, "float32", "scale")

    def decoded(*axes: Any) -> Any:
        place: Any = 0
        for axis, extent in zip(axes, shape, strict=True):
            place = place * extent + axis
        byte = tirx.Cast("int32", codes[place // each].asobject())
        code = (byte >> (place % each * bits)) & ((1 << bits) - 1) if each > 1 else byte
        at = [axis // repeat if count > 1 else 0 for axis, repeat, count in zip(axes, repeats, counts, strict=True)]
        return values[code] * scale[tuple(at)]

    return te.create_prim_func([codes, values, scale, te.compute(shape, decoded, name="decoded")])


def _joined(codes: np.ndarray, bits: int) -> np.ndarray:
    """Put codes several into a byte, the first in the lowest bits."""
    each, flat = 8 // bits, codes.reshape(-1).astype(np.uint8)
    rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    weights = np.array([1 << (place * bits) for place in range(each)])
    return np.asarray(rows @ weights).astype(np.uint8)


def _narrowed(scale: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The least array that holds scales, where zeros stay open, and how often each of its places repeats by axis."""
    repeats = []
    for axis, size in enumerate(scale.shape):
        for repeat in (n for n in range(size, 0, -1) if size % n == 0):
            parts = scale.reshape(*scale.shape[:axis], size // repeat, repeat, *scale.shape[axis + 1 :])
            most = parts.max(axis + 1, keepdims=True)
            if np.all((parts == most) | (parts == 0)):
                break
        scale = most.squeeze(axis + 1)
        repeats.append(repeat)
    return np.ascontiguousarray(scale), tuple(repeats)

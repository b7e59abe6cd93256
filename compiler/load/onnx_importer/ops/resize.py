"""Resizing. ATen's resampling where it is exactly what ONNX asks for; picks and interpolation matrices elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer import interpolation
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.interpolation import Axis, Rule
from lvc.compiler.load.onnx_importer.values import Constant, Value, check_size, constant, dtype_of, shape_of

aten = torch.ops.aten
_ATEN = {"linear": aten.upsample_bilinear2d.vec, "cubic": aten.upsample_bicubic2d.vec}


@converts("Resize")
def resize(call: Call) -> Value:
    """Operands are X, scales in opset 10, and X, roi, scales, sizes from opset 11 on."""
    old = call.opset < 11
    rule = Rule(
        mode=call.attribute("mode", "nearest"),
        coordinates=call.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"),
        nearest=call.attribute("nearest_mode", "simple" if old else "round_prefer_floor"),
        cubic=call.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(call.attribute("exclude_outside", 0)),
        antialias=bool(call.attribute("antialias", 0)),
        extrapolation=call.attribute("extrapolation_value", 0.0),
    )
    return _resized(call, _scaled_axes(call, 1) if old else _axes(call, rule), rule)


@converts("Upsample")
def upsample(call: Call) -> Value:
    """Scales are an attribute in opset 7, an operand in opset 9."""
    rule = Rule(call.attribute("mode", "nearest"), "asymmetric", "simple", -0.75, False, False, 0.0)
    return _resized(call, _scaled_axes(call, 1), rule)


def _scaled_axes(call: Call, operand: int) -> dict[int, Axis]:
    scales = call.attribute("scales") or call.tensor(operand, "scales").tolist()
    shape = enumerate(zip(call.shape(), scales, strict=True))
    return {i: Axis(size, math.floor(size * scale), scale) for i, (size, scale) in shape}


def _axes(call: Call, rule: Rule) -> dict[int, Axis]:
    """Read each resized axis from scales or sizes; a policy that keeps the aspect ratio gives all the same scale."""
    rank, shape = call.rank(), call.shape()
    axes = call.places(call.attribute("axes") or range(rank))
    start, end = dict.fromkeys(axes, 0.0), dict.fromkeys(axes, 1.0)
    if rule.coordinates == "tf_crop_and_resize":
        roi = call.tensor(1, "roi").tolist()
        start, end = dict(zip(axes, roi, strict=False)), dict(zip(axes, roi[len(axes) :], strict=True))
    scales = call.tensor(2, "scales").tolist() if call.get(2) is not None else []
    if scales:
        resized = {axis: math.floor(shape[axis] * scale) for axis, scale in zip(axes, scales, strict=True)}
    else:
        sizes = call.ints(3, "sizes")
        scales = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
        resized = dict(zip(axes, sizes, strict=True))
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scales = [min(scales) if policy == "not_larger" else max(scales)] * len(axes)
            resized = {axis: math.floor(shape[axis] * scales[0] + 0.5) for axis in axes}
    return {
        axis: Axis(shape[axis], resized[axis], scale, start[axis], end[axis])
        for axis, scale in zip(axes, scales, strict=True)
    }


def _resized(call: Call, axes: Mapping[int, Axis], rule: Rule) -> Value:
    if all(axis.resized == axis.size for axis in axes.values()) and rule.coordinates != "tf_crop_and_resize":
        return call[0]  # as in ONNX Runtime, even if the scales are not 1
    moved = {
        i: axis
        for i, axis in sorted(axes.items())
        if axis.resized != axis.size or not math.isclose(axis.scale, 1.0) or (axis.start, axis.end) != (0.0, 1.0)
    }
    for axis in moved.values():
        if not axis.size or not axis.resized:
            raise ValueError(f"{axis.size} elements cannot be resized to {axis.resized}")
        check_size(TensorSpec((axis.resized, axis.size), torch.float64))
    if rule.mode == "nearest":
        return _picked(call, moved, rule)
    if rule.mode not in ("linear", "cubic"):
        raise ValueError(f"mode cannot be '{rule.mode}'")
    return _interpolated(call, moved, rule)


def _picked(call: Call, axes: Mapping[int, Axis], rule: Rule) -> Value:
    """Nearest: one source element for each place."""
    x = call[0]
    picks = {i: interpolation.nearest_index(axis, rule) for i, axis in axes.items()}
    if _is_picture(call, axes) and all(np.array_equal(picks[i], _aten_nearest(axis)) for i, axis in axes.items()):
        x = call.emit(aten.upsample_nearest2d.vec, x, _picture_size(call, axes), None)
    else:
        for i, pick in picks.items():
            x = call.emit(aten.index_select.default, x, i, constant(pick))
    return _extrapolated(call, x, axes, rule)


def _interpolated(call: Call, axes: Mapping[int, Axis], rule: Rule) -> Value:
    """Linear and cubic: a matrix product along each axis."""
    x, dtype = call[0], call.dtype()
    if not dtype.is_floating_point:
        x = call.cast(x, torch.float32)
    matrices = {i: interpolation.weights(axis, rule) for i, axis in axes.items()}
    corners = _aten_alignment(axes, matrices, rule)
    if corners is not None and _is_picture(call, axes) and rule.mode in _ATEN:
        x = call.emit(_ATEN[rule.mode], x, _picture_size(call, axes), corners, None)
    else:
        for i, matrix in matrices.items():
            x = _multiplied(call, x, i, torch.from_numpy(matrix).to(dtype_of(x)))
    return call.cast(_extrapolated(call, x, axes, rule), dtype)


def _multiplied(call: Call, x: Value, axis: int, matrix: torch.Tensor) -> Value:
    rank = len(shape_of(x))
    if axis == rank - 2:
        return call.emit(aten.matmul.default, Constant(matrix), x)
    order = [i for i in range(rank) if i != axis] + [axis]
    back = [order.index(i) for i in range(rank)]
    product = call.emit(aten.matmul.default, call.permute(x, order), Constant(matrix.T.contiguous()))
    return call.permute(product, back)


def _is_picture(call: Call, axes: Mapping[int, Axis]) -> bool:
    return call.rank() == 4 and bool(axes) and set(axes) <= {2, 3} and call.dtype().is_floating_point


def _picture_size(call: Call, axes: Mapping[int, Axis]) -> list[int]:
    return [axes[i].resized if i in axes else call.shape()[i] for i in (2, 3)]


def _aten_nearest(axis: Axis) -> np.ndarray:
    """Return the places that ATen's nearest neighbour picks."""
    step = np.float32(axis.size) / np.float32(axis.resized)
    places = np.floor(np.arange(axis.resized, dtype=np.float32) * step)
    picked: np.ndarray = np.minimum(places, axis.size - 1).astype(np.int64)
    return picked


def _aten_alignment(axes: Mapping[int, Axis], matrices: Mapping[int, np.ndarray], rule: Rule) -> bool | None:
    """Return the ``align_corners`` with which ATen interpolates by the same matrices; None if neither does."""
    for corners, mode in ((False, "half_pixel"), (True, "align_corners")):
        own = Rule(rule.mode, mode, "", -0.75, False, False, 0.0)
        plain = {i: Axis(axis.size, axis.resized, axis.resized / axis.size) for i, axis in axes.items()}
        if all(np.allclose(matrices[i], interpolation.weights(axis, own), atol=1e-6) for i, axis in plain.items()):
            return corners
    return None


def _extrapolated(call: Call, x: Value, axes: Mapping[int, Axis], rule: Rule) -> Value:
    """Put the extrapolation value where tf_crop_and_resize reads from beyond the data."""
    if rule.coordinates != "tf_crop_and_resize":
        return x
    beyond = torch.zeros(1, dtype=torch.bool)
    for i, axis in axes.items():
        place = [1] * call.rank()
        place[i] = -1
        beyond = beyond | torch.from_numpy(interpolation.outside(axis)).reshape(place)
    if not beyond.any():
        return x
    return call.emit(aten.where.self, constant(beyond, torch.bool), constant(rule.extrapolation, dtype_of(x)), x)

"""Places that an affine map gives, and images read at places that are computed."""

from __future__ import annotations

import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.affine_grid import places
from lvc.compiler.load.normalise.regions import SAMPLED
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_rule
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, check_size, dtype_of

aten = torch.ops.aten

_INTERPOLATIONS = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


@converts("AffineGrid")
def affine_grid(call: Call) -> Value:
    """theta (N, d, d + 1) times the places of a picture of known size in [-1, 1], the last axis first."""
    batch, *sizes = (size for place, size in enumerate(call.ints(1, "size")) if place != 1)
    corners = bool(call.attribute("align_corners", 0))
    if corners and 1 in sizes:
        raise Unsupported("aligns the corners of a single element")
    check_size(TensorSpec((*sizes, len(sizes) + 1), torch.float64))
    if call.shape() != (batch, len(sizes), len(sizes) + 1):
        raise ValueError(f"theta is {list(call.shape())}, and the size wants {[batch, len(sizes), len(sizes) + 1]}")
    flat = Constant(places(sizes, corners, dtype_of(call[0])))
    product = call.emit(aten.matmul.default, flat, call.permute(call[0], [0, 2, 1]))
    return call.reshape(product, [batch, *sizes, len(sizes)])


@converts("GridSample")
def grid_sample(call: Call) -> Value:
    """X (N, C, H, W) at grid (N, H', W', 2), or volumes at places of three; modes have other names from opset 20 on."""
    mode = call.attribute("mode", "linear" if call.opset >= 20 else "bilinear")
    padding = call.attribute("padding_mode", "zeros")
    if mode not in _INTERPOLATIONS:
        raise ValueError(f"mode cannot be '{mode}'")
    if padding not in _PADDINGS:
        raise ValueError(f"padding_mode cannot be '{padding}'")
    rank = call.rank()
    if (
        rank not in (4, 5)
        or call.rank(1) != rank
        or call.shape(1)[0] != call.shape()[0]
        or call.shape(1)[-1] != rank - 2
    ):
        raise ValueError(f"a grid of shape {list(call.shape(1))} has no places in images of shape {list(call.shape())}")
    if not call.dtype().is_floating_point:
        raise Unsupported(f"interpolates elements of type {str(call.dtype()).removeprefix('torch.')}")
    corners = bool(call.attribute("align_corners", 0))
    grid = call.cast(call[1], call.dtype())
    options = (_INTERPOLATIONS[mode], _PADDINGS[padding], corners)
    if rank == 5:
        sampled: Value = by_rule(call, SAMPLED[aten.grid_sampler_3d.default], call[0], grid, *options)
        return sampled
    return call.emit(aten.grid_sampler_2d.default, call[0], grid, *options)

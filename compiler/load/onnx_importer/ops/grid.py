"""Grids of places that an affine map gives."""

from __future__ import annotations

import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, check_size, dtype_of

aten = torch.ops.aten


@converts("AffineGrid")
def affine_grid(call: Call) -> Value:
    """theta (N, d, d + 1) times the places of a picture of known size in [-1, 1], the last axis first."""
    batch, *sizes = (size for place, size in enumerate(call.ints(1, "size")) if place != 1)
    corners = bool(call.attribute("align_corners", 0))
    if corners and 1 in sizes:
        raise Unsupported("aligns the corners of a single element")
    check_size(TensorSpec((*sizes, len(sizes) + 1), torch.float64))
    axes = [_places(size, corners) for size in sizes]
    grid = torch.stack([*reversed(torch.meshgrid(*axes, indexing="ij")), torch.ones(sizes, dtype=torch.float64)], -1)
    if call.shape() != (batch, len(sizes), len(sizes) + 1):
        raise ValueError(f"theta is {list(call.shape())}, and the size wants {[batch, len(sizes), len(sizes) + 1]}")
    flat = Constant(grid.reshape(-1, len(sizes) + 1).to(dtype_of(call[0])))
    product = call.emit(aten.matmul.default, flat, call.permute(call[0], [0, 2, 1]))
    return call.reshape(product, [batch, *sizes, len(sizes)])


def _places(size: int, corners: bool) -> torch.Tensor:
    """The places of elements on one axis: from corner to corner, or the middles of as many equal parts."""
    steps = torch.arange(size, dtype=torch.float64)
    return steps * 2 / (size - 1) - 1 if corners else (2 * steps + 1) / size - 1

"""Interpolation: ONNX's Resize with PyTorch's conventions on where a sample lies, and GridSample, which shares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import regions


def nearest(w: GraphWriter, node: Node) -> str:
    where = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resize(w, node, mode="nearest", **where)


def smooth(mode: str) -> Callable[[GraphWriter, Node], str]:
    """The writer for linear or cubic interpolation."""

    def write(w: GraphWriter, node: Node) -> str:
        where = "align_corners" if arguments(node)["align_corners"] else "half_pixel"
        cubic = {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
        return _resize(w, node, mode=mode, coordinate_transformation_mode=where, **cubic)

    return write


def _resize(w: GraphWriter, node: Node, **attributes: Any) -> str:
    """Resize by factors where PyTorch was given some that lead to the result's size, else to that size.

    Where a size stays as it is, or doubles for the nearest pixel, PyTorch goes by the sizes.
    """
    args = arguments(node)
    shape, plain = spec(args["input"]).shape, {"nearest": (1, 2), "linear": (1,)}.get(attributes["mode"], ())
    given = zip(shape[2:], spec(node).shape[2:], args["scale_factors"] or (), strict=False)
    factors = [1.0, 1.0, *(out / size if out in [n * size for n in plain] else factor for size, out, factor in given)]
    x = w.name(args["input"])
    if len(factors) == 4 and all(
        int(size * factor) == result for size, factor, result in zip(shape, factors, spec(node).shape, strict=True)
    ):
        return w.emit("Resize", x, "", w.constant(torch.tensor(factors), torch.float32), **attributes)
    return w.emit("Resize", x, "", "", w.constant(list(spec(node).shape)), **attributes)


def sample(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    modes = ("linear", "nearest", "cubic") if w.opset >= 20 else ("bilinear", "nearest", "bicubic")
    return w.emit(
        "GridSample",
        w.name(args["input"]),
        w.name(args["grid"]),
        mode=modes[args["interpolation_mode"]],
        padding_mode=("zeros", "border", "reflection")[args["padding_mode"]],
        align_corners=int(args["align_corners"]),
    )


def align(w: GraphWriter, node: Node) -> str:
    """RoiAlign of each level of a pyramid for all regions, and of these for each region that of its level."""
    args = arguments(node)
    columns = [
        w.emit("Slice", w.name(args["rois"]), w.constant([start]), w.constant([end]), w.constant([1]))
        for start, end in ((0, 1), (1, 5))
    ]
    images = w.convert(w.reshape(columns[0], (-1,)), torch.int64)
    where = "half_pixel" if args["aligned"] else "output_half_pixel"
    made = ""
    for number in reversed(range(len(args["levels"]))):
        found = w.emit(
            "RoiAlign",
            w.name(args["levels"][number]),
            columns[1],
            images,
            coordinate_transformation_mode=where,
            mode="avg",
            output_height=args["cells"][0],
            output_width=args["cells"][1],
            sampling_ratio=args["samples"],
            spatial_scale=args["scales"][number],
        )
        if made:
            is_there = w.emit("Equal", w.reshape(w.name(args["level"]), (-1, 1, 1, 1)), w.constant([number]))
            found = w.emit("Where", is_there, found, made)
        made = found
    return made


WRITERS = {
    aten.upsample_nearest2d.vec: nearest,
    aten.upsample_bilinear2d.vec: smooth("linear"),
    aten.upsample_bicubic2d.vec: smooth("cubic"),
    aten.grid_sampler_2d.default: sample,
    regions.roi_align: align,
}

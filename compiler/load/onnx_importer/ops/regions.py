"""Regions of interest, deformed windows, and windows added up into an image."""

from __future__ import annotations

import torch

from lvc.compiler.load.normalise.composite import composite
from lvc.compiler.load.normalise.patches import PATCHES
from lvc.compiler.load.normalise.pooled_regions import roi_pool
from lvc.compiler.load.normalise.regions import deform_conv2d, roi_align, roi_align_max
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.ops.movement import sliced
from lvc.compiler.load.onnx_importer.rules import by_meaning, by_rule
from lvc.compiler.load.onnx_importer.values import Unsupported, Value, shape_of

aten = torch.ops.aten

_ALIGNED = {"half_pixel": True, "output_half_pixel": False}
_RULES = {"avg": roi_align, "max": composite(roi_align_max)}


@converts("RoiAlign")
def align(call: Call) -> Value:
    """X (N, C, H, W) in regions (K, 4) of images; before opset 16 pixels have no extent."""
    old = call.opset < 16
    mode = call.attribute("mode", "avg")
    coordinates = "output_half_pixel" if old else call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in _RULES or coordinates not in _ALIGNED:
        raise ValueError(f"mode cannot be '{mode}' with coordinates '{coordinates}'")
    numbers = call.reshape(call.cast(call[2], call.dtype()), [-1, 1])
    rois = call.emit(aten.cat.default, [numbers, call.cast(call[1], call.dtype())], 1)
    cells = int(call.attribute("output_height", 1)), int(call.attribute("output_width", 1))
    scale, samples = float(call.attribute("spatial_scale", 1.0)), int(call.attribute("sampling_ratio", 0))
    result: Value = by_rule(call, _RULES[mode], call[0], rois, scale, *cells, samples, _ALIGNED[coordinates])
    return result


@converts("MaxRoiPool")
def largest(call: Call) -> Value:
    """X (N, C, H, W) in regions (K, 5), which begin with the number of their image."""
    cells = [int(n) for n in call.attribute("pooled_shape")]
    if len(cells) != 2 or min(cells) < 1:
        raise ValueError(f"pooled_shape cannot be {cells}")
    scale = float(call.attribute("spatial_scale", 1.0))
    result: Value = by_meaning(call, roi_pool, call[0], call[1], scale, *cells)
    return result


@converts("DeformConv")
def deformable_convolution(call: Call) -> Value:
    """The size of the result is that of the offsets, so that padding behind the image needs no saying."""
    if call.rank() != 4:
        raise Unsupported("is deformed over other than two axes")
    strides = [int(n) for n in call.attribute("strides") or (1, 1)]
    dilations = [int(n) for n in call.attribute("dilations") or (1, 1)]
    pads = [int(n) for n in call.attribute("pads") or (0, 0, 0, 0)]
    if list(call.attribute("kernel_shape") or call.shape(1)[2:]) != list(call.shape(1)[2:]):
        raise ValueError(f"kernel_shape is {call.attribute('kernel_shape')}, and the weights' {call.shape(1)[2:]}")
    groups = int(call.attribute("group", 1)), int(call.attribute("offset_group", 1))
    mask = call.get(4)
    options = (*strides, *pads[:2], *dilations, *groups, mask is not None)
    result: Value = by_meaning(call, deform_conv2d, call[0], call[1], call[2], mask, call.get(3), *options)
    return result


@converts("Col2Im")
def windows_to_image(call: Call) -> Value:
    """Windows are added into a padded image, which is cut."""
    size, block = call.ints(1, "image_shape"), call.ints(2, "block_shape")
    if len(size) != 2:
        raise Unsupported(f"makes an image of {len(size)} axes")
    top, left, bottom, right = (int(n) for n in call.attribute("pads") or (0, 0, 0, 0))
    strides = [int(n) for n in call.attribute("strides") or (1, 1)]
    dilations = [int(n) for n in call.attribute("dilations") or (1, 1)]
    padded = [size[0] + top + bottom, size[1] + left + right]
    image = by_rule(call, PATCHES[aten.col2im.default], call[0], padded, block, dilations, [0, 0], strides)
    for axis, before, count in ((2, top, size[0]), (3, left, size[1])):
        if shape_of(image)[axis] != count:
            image = sliced(call, image, axis, before, before + count)
    result: Value = image
    return result

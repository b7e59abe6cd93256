"""Reductions, normalisations, pooling and interpolation against PyTorch, plain and blocked."""

from __future__ import annotations

import pytest
import torch
from sketch import Sketch, check, numbers
from torch.fx import Node

aten = torch.ops.aten
SHAPE = (2, 5, 6, 7)


def start(sketch: Sketch, blocked: bool) -> Node:
    data = sketch.input(*SHAPE)
    return sketch.conv(data, 5) if blocked else data


@pytest.mark.parametrize("blocked", [False, True])
def test_reductions(blocked: bool) -> None:
    sketch = Sketch()
    data = start(sketch, blocked)
    outputs = []
    for op in (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default):
        outputs += [
            sketch.call(op, data, dims, keep)
            for dims, keep in (([2, 3], True), ([2, 3], False), ([1], True), ([-1], False))
        ]
    outputs += [sketch.call(aten.mean.dim, data, None), sketch.call(aten.prod.dim_int, data, 3)]
    outputs += [sketch.call(aten.linalg_vector_norm.default, data, p, [1], True) for p in (2, 1, float("inf"), 3)]
    outputs += [sketch.call(op.default, data, dim) for op in (aten.argmax, aten.argmin) for dim in (1, None)]
    outputs += [sketch.call(aten.argmax.default, data, -1, True), sketch.call(aten.cumsum.default, data, 2)]
    pooled = sketch.conv(sketch.call(aten.mean.dim, data, [2, 3], True), 5)
    outputs.append(sketch.call(aten.mul.Tensor, data, sketch.call(aten.sigmoid.default, pooled)))
    check(sketch.model(*outputs), numbers(*SHAPE))


@pytest.mark.parametrize("blocked", [False, True])
def test_normalisations(blocked: bool) -> None:
    sketch = Sketch()
    data = start(sketch, blocked)

    def vector(size: int) -> Node:
        return sketch.stored(torch.rand(size) + 0.5)

    statistics = vector(5), vector(5), vector(5), vector(5)
    mean = sketch.call(aten.mean.dim, data, [0, 2, 3])
    outputs = [
        sketch.call(aten.batch_norm.default, data, *statistics, False, 0.1, 1e-5, False),
        sketch.call(aten.batch_norm.default, data, None, None, mean, vector(5), False, 0.1, 1e-5, False),
        sketch.call(aten.layer_norm.default, data, [7], vector(7), vector(7)),
        sketch.call(aten.layer_norm.default, data, [6, 7]),
        sketch.call(aten.group_norm.default, data, 1, vector(5), vector(5)),
        sketch.call(aten.group_norm.default, data, 5),
        sketch.call(aten.instance_norm.default, data, vector(5), vector(5), None, None, True, 0.1, 1e-5, False),
        sketch.call(aten.softmax.int, data, -1),
        sketch.call(aten.softmax.int, data, 1),
        sketch.call(aten.log_softmax.int, data, 1),
    ]
    check(sketch.model(*outputs), numbers(*SHAPE))


@pytest.mark.parametrize("blocked", [False, True])
def test_pooling(blocked: bool) -> None:
    sketch = Sketch()
    data = start(sketch, blocked)
    outputs = [
        sketch.call(aten.max_pool2d.default, data, [3, 3], [2, 2], [1, 1]),
        sketch.call(aten.max_pool2d.default, data, [2, 3], [2, 1], [0, 1], [2, 1], True),
        sketch.call(aten.avg_pool2d.default, data, [2, 2]),
        sketch.call(aten.avg_pool2d.default, data, [3, 2], [2, 2], [1, 1], True, False),
        sketch.call(aten.avg_pool2d.default, data, [3, 3], [2, 2], [1, 1], True, True),
        sketch.call(aten.avg_pool2d.default, data, [3, 3], [1, 1], [1, 1], False, True, 5),
        *(sketch.call(aten.adaptive_avg_pool2d.default, data, size) for size in ([1, 1], [3, 7], [4, 5], [6, 7])),
    ]
    check(sketch.model(*outputs), numbers(*SHAPE))


@pytest.mark.parametrize("blocked", [False, True])
def test_interpolation(blocked: bool) -> None:
    sketch = Sketch()
    data = start(sketch, blocked)
    outputs = [sketch.call(aten.upsample_nearest2d.vec, data, size, None) for size in ([12, 14], [9, 5])]
    outputs.append(sketch.call(aten.upsample_nearest2d.vec, data, None, [2.0, 1.5]))
    for op in (aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec):
        outputs += [sketch.call(op, data, [11, 9], corners, None) for corners in (False, True)]
        outputs.append(sketch.call(op, data, None, False, [2.0, 1.5]))
    check(sketch.model(*outputs), numbers(*SHAPE), tolerance=1e-4)

"""Products of two computed tensors of 8 bits against their definitions, bit for bit."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from test_integer import DTYPES, check_exact, whole
from torch.fx import Node

from lvc.compiler import integer


def zero_points(dtype: torch.dtype) -> st.SearchStrategy[int]:
    """The ends of a type, and a number within."""
    limits = torch.iinfo(dtype)
    return st.sampled_from([limits.min, limits.max, 17])


def requantised(sketch: Sketch, sums: Node, largest: int) -> Node:
    """Sums on a grid of 8 bits that the largest of them fill and leave."""
    multiplier = sketch.stored(torch.tensor([300.3 / largest]))
    return sketch.call(integer.requantise, sums, multiplier, 0, 5, -128, 127, group="product")


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_gates(data: st.DataObject) -> None:
    """A gate for each channel, for each element, or for each image of a batch or for all, on either side."""
    draw = data.draw
    n, c, h, w = (draw(st.integers(1, most)) for most in (3, 40, 9, 9))
    gate_shape = draw(st.sampled_from([(n, c, 1, 1), (n, c, h, w), (1, c, h, w), (1, c, 1, 1), (n, 1, h, w)]))
    shapes = [(n, c, h, w), gate_shape]
    if draw(st.booleans()):
        shapes.reverse()
    dtypes = [draw(st.sampled_from(DTYPES)) for _ in shapes]
    sketch = Sketch()
    inputs = [sketch.input(*shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    operands = [value for node, dtype in zip(inputs, dtypes, strict=True) for value in (node, draw(zero_points(dtype)))]
    sums = sketch.call(integer.mul, *operands, group="product")
    values = [whole(draw(st.integers(0, 3)), dtype, *shape) for dtype, shape in zip(dtypes, shapes, strict=True)]
    check_exact(sketch.model(requantised(sketch, sums, 255 * 255)), *values)

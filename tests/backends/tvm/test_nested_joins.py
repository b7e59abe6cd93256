"""Concatenations inside others, along the same and other dimensions, of parts that are shared and viewed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, check, numbers
from torch.fx import Node

from lvc.compiler.ir.dialect import aten


@pytest.mark.parametrize("kind", ["alone", "first", "second", "function on the other", "function between"])
def test_joined_scales_inside_joined_heads(kind: str) -> None:
    """The head of a segmentation network: scales are joined along places, then boxes and coefficients."""
    sketch = Sketch()
    data = sketch.input(1, 3, 16, 16)

    def scales(channels: int) -> Node:
        convolutions = [sketch.conv(data, channels, stride=stride) for stride in (1, 2)]
        flat = [sketch.call(aten.reshape.default, value, [1, channels, -1]) for value in convolutions]
        return sketch.call(aten.cat.default, flat, 2)

    inner, other = scales(4), scales(2)
    if kind == "function on the other":
        other = sketch.call(aten.sigmoid.default, other)
    if kind == "function between":
        inner = sketch.call(aten.relu.default, inner)
    parts = {"alone": [inner], "first": [inner, other]}.get(kind, [other, inner])
    check(sketch.model(sketch.call(aten.cat.default, parts, 1)), numbers(1, 3, 16, 16))


@settings(max_examples=20)
@given(st.data())
def test_random_joins(data: st.DataObject) -> None:
    """Values of 1xCxHxW are joined, cut, looked at otherwise and computed with, and read several times."""
    sketch = Sketch()
    source = sketch.input(1, 3, 4, 4)
    values = [sketch.conv(source, channels) for channels in (16, 8, 5)]
    for _ in range(data.draw(st.integers(3, 9))):
        values.append(grow(sketch, values, data))
    outputs = [*values[-2:], data.draw(st.sampled_from(values))]
    check(sketch.model(*outputs), numbers(1, 3, 4, 4))


def grow(sketch: Sketch, values: list[Node], data: st.DataObject) -> Node:
    """One more value made of those that there are."""
    value = data.draw(st.sampled_from(values[-4:]))
    n, c, h, w = value.meta["spec"].shape
    kind = data.draw(st.sampled_from(["cat", "cat", "cat", "slice", "view", "permute", "function", "conv", "add"]))
    if kind == "cat":
        dim = data.draw(st.sampled_from([1, 1, 2, 3]))
        fitting = [v for v in values if same_but(v, value, dim)]
        parts = data.draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=3))
        return sketch.call(aten.cat.default, [value, *parts], dim)
    if kind == "slice":
        dim = data.draw(st.sampled_from([1, 2, 3]))
        size = (n, c, h, w)[dim]
        start = data.draw(st.integers(0, size - 1))
        return sketch.call(aten.slice.Tensor, value, dim, start, data.draw(st.integers(start + 1, size)))
    if kind == "view":
        return sketch.call(aten.reshape.default, value, data.draw(st.sampled_from([[n, c, w, h], [n, h, c, w]])))
    if kind == "permute":
        return sketch.call(aten.permute.default, value, data.draw(st.sampled_from([[0, 1, 3, 2], [0, 2, 1, 3]])))
    if kind == "conv" and h * w <= 256:
        return sketch.conv(value, data.draw(st.sampled_from([5, 8, 16])))
    if kind == "add":
        return sketch.call(aten.add.Tensor, value, value)
    return sketch.call(aten.relu.default, value)


def same_but(one: Node, other: Node, dim: int) -> bool:
    """Whether two values have the same shape in all dimensions but one."""
    pairs = zip(one.meta["spec"].shape, other.meta["spec"].shape, strict=True)
    return all(a == b for d, (a, b) in enumerate(pairs) if d != dim)

"""Indices with divisions: TVM 0.27 flattens some of them wrongly, and what lvc does about it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, check
from tvm import ir, te, tirx

import lvc
from lvc.backends.tvm.shifted_divisions import hide_shifted_divisions
from lvc.compiler.ir.dialect import aten

EXTENT = 240


def hidden(first: tuple[int, int, int], second: tuple[int, int, int]) -> str:
    """The text of two indices after the pass: each ``(v + shift) // divisor % modulus`` of one loop variable."""
    data = te.placeholder((64, 64), "float32", "data")

    def element(v: object) -> object:
        return data[tuple((v + shift) // divisor % modulus for shift, divisor, modulus in (first, second))]

    function = te.create_prim_func([data, te.compute((EXTENT,), element, "made")])
    lowered = tvm.ir.transform.Sequential(
        [
            tvm.s_tir.transform.ConvertBlocksToOpaque(),
            tvm.s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.prim_func_pass(hide_shifted_divisions, opt_level=0, name="hide"),
        ]
    )(ir.IRModule({"main": function}))
    found = re.search(r"= data\[(.*)\]", lowered["main"].script())
    assert found
    return found[1]


def test_divisions_that_agree_stay_as_they_are() -> None:
    """TVM may merge ``v // 16`` and ``v % 16`` of the same index: kernels of tiles depend on it."""
    assert "trunc" not in hidden((3, 1, 16), (19, 1, 16))
    assert "trunc" not in hidden((0, 16, 4), (0, 1, 16))


@pytest.mark.parametrize("second", [(2, 1, 16), (3, 16, 16), (0, 1, 16), (3, 1, 12)])
def test_divisions_that_do_not_agree_are_hidden(second: tuple[int, int, int]) -> None:
    text = hidden((3, 1, 16), second)
    assert "trunc" in text
    assert "%" not in text
    assert "//" not in text


@pytest.mark.parametrize("channels", [24, 32])
@pytest.mark.parametrize("linear", [False, True])
def test_windows_put_back_together(channels: int, linear: bool) -> None:
    """Reshape, permute, reshape, roll and reshape, as in the shifted windows of Swin: nothing but moves."""

    class Windows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(channels, channels) if linear else torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x).reshape(1, 4, 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(1, 16, 16, channels)
            return torch.roll(y, (2, 2), (1, 2)).reshape(1, 256, channels)

    net, x = Windows().eval(), torch.randn(16, 16, channels)
    found = lvc.load(lvc.compile(lvc.from_module(net, x), "O2"))(x.numpy())
    np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-5 if linear else 0)


SIZES = (1, 2, 3, 4, 5, 6, 8, 16)


@st.composite
def shapes(draw: st.DrawFn, elements: int) -> list[int]:
    """A shape of so many elements."""
    shape: list[int] = []
    while elements > 1 and len(shape) < 4:
        size = draw(st.sampled_from([s for s in (*SIZES, elements) if elements % s == 0 and s > 1]))
        shape.append(size)
        elements //= size
    return [*shape, elements] if elements > 1 or not shape else shape


@settings(max_examples=20)
@given(st.data())
def test_chains_of_moves_are_exact(data: st.DataObject) -> None:
    """Several chains of reshape, permute, roll, slice, pad, flip and concatenation, all of whole numbers."""
    sketch, outputs = Sketch(), []
    shape = data.draw(shapes(EXTENT))
    source = sketch.input(*shape)
    for _ in range(2):
        value = source
        for _ in range(data.draw(st.integers(2, 6))):
            value = move(sketch, value, data)
        outputs.append(value)
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    check(sketch.model(*outputs), array, tolerance=0)


def move(sketch: Sketch, value: torch.fx.Node, data: st.DataObject) -> torch.fx.Node:
    shape = list(value.meta["spec"].shape)
    rank = len(shape)
    dim = data.draw(st.integers(0, rank - 1))
    kind = data.draw(st.sampled_from(["reshape", "reshape", "permute", "roll", "roll", "slice", "pad", "flip", "cat"]))
    if kind == "reshape":
        return sketch.call(aten.reshape.default, value, data.draw(shapes(math.prod(shape))))
    if kind == "permute":
        return sketch.call(aten.permute.default, value, data.draw(st.permutations(range(rank))))
    if kind == "roll":
        dims = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
        return sketch.call(aten.roll.default, value, [data.draw(st.integers(-9, 9)) for _ in dims], dims)
    if kind == "slice" and shape[dim] > 1:
        start = data.draw(st.integers(0, shape[dim] - 1))
        return sketch.call(aten.slice.Tensor, value, dim, start, None, data.draw(st.integers(1, 2)))
    if kind == "pad":
        amounts = [data.draw(st.integers(0, 2)) for _ in range(2)]
        return sketch.call(aten.constant_pad_nd.default, value, amounts, -1.0)
    if kind == "cat":
        return sketch.call(aten.cat.default, [value, sketch.call(aten.flip.default, value, [dim])], dim)
    return sketch.call(aten.flip.default, value, [dim])

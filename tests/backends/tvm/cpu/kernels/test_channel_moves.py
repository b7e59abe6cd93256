"""Kernels that take channels from elsewhere, vector by vector."""

from __future__ import annotations

import pytest
import torch
from sketch import Sketch, check, numbers
from torch.fx import Node
from tvm import s_tir

from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.kernels.channel_moves import channel_move
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower

aten = torch.ops.aten
AVX2 = CpuCodeGenerator(Vector(Avx2()))


def shuffled(sketch: Sketch, data: Node, groups: int) -> Node:
    n, c, h, w = data.meta["spec"].shape
    split = sketch.call(aten.reshape.default, data, [n, groups, c // groups, h, w])
    return sketch.call(aten.reshape.default, sketch.call(aten.permute.default, split, [0, 2, 1, 3, 4]), [n, c, h, w])


def moves(sketch: Sketch, data: Node) -> dict[str, Node]:
    """By what is done, all values that are channels of another one."""
    c = data.meta["spec"].shape[1]
    other = sketch.conv(data, 13)
    return {
        "first half": sketch.call(aten.slice.Tensor, data, 1, 0, c // 2),
        "second half": sketch.call(aten.slice.Tensor, data, 1, c // 2, c),
        "every third": sketch.call(aten.slice.Tensor, data, 1, 1, None, 3),
        "reversed": sketch.call(aten.flip.default, data, [1]),
        "rolled": sketch.call(aten.roll.default, data, [5], [1]),
        "joined": sketch.call(aten.cat.default, [data, other, data], 1),
        "padded": sketch.call(aten.constant_pad_nd.default, data, [0, 0, 0, 0, 3, 2]),
        "shuffled by 2": shuffled(sketch, data, 2),
        "shuffled by 11": shuffled(sketch, data, c // 2),
    }


@pytest.mark.parametrize("size", [(2, 3, 5), (1, 41, 40)], ids=["two images", "on two threads"])
def test_channels_from_elsewhere(size: tuple[int, int, int]) -> None:
    n, h, w = size
    sketch = Sketch()
    data = sketch.conv(sketch.input(n, 3, h, w), 22)
    outputs = [sketch.conv(value, 8) for value in moves(sketch, data).values()]
    check(sketch.model(*outputs), numbers(n, 3, h, w), threads=2)


def test_no_element_is_moved_alone() -> None:
    sketch = Sketch()
    data = sketch.conv(sketch.input(1, 3, 4, 6), 22)
    found = moves(sketch, data)
    model = sketch.model(*(sketch.conv(value, 8) for value in found.values()))
    names = {value.name: done for done, value in found.items()}
    steps = {step.nodes[-1]: step for step in lower(model, AVX2).steps}
    plain = []
    for name, done in names.items():
        schedule = s_tir.Schedule(steps[name].function)
        (stage,) = schedule.get_child_blocks(schedule.get_sblock("root"))
        if channel_move(schedule, stage, AVX2.vector) is None:
            plain.append(done)
    assert not plain


@pytest.mark.parametrize("dim", [0, 2, 3])
def test_what_moves_in_the_plane_is_none(dim: int) -> None:
    sketch = Sketch()
    value = sketch.call(aten.flip.default, sketch.conv(sketch.input(2, 3, 4, 6), 16), [dim])
    (step,) = [step for step in lower(sketch.model(sketch.conv(value, 8)), AVX2).steps if value.name in step.nodes]
    schedule = s_tir.Schedule(step.function)
    (stage,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    assert channel_move(schedule, stage, AVX2.vector) is None

"""Blocked values that become plain, square by square."""

from __future__ import annotations

import numpy as np
import pytest
from sketch import Sketch, aten, check, numbers
from torch.fx import Node
from tvm import s_tir

from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.kernels import transposition
from lvc.backends.tvm.cpu.kernels.unblocking import Unblocking, unblocking
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.compiler.ir.model import Model

AVX2 = CpuCodeGenerator(Vector(Avx2()))


def unblocked(model: Model) -> list[Unblocking | None]:
    """What is said of the last kernel of each output."""
    found = []
    for step in lower(model, AVX2).steps:
        if step.name.startswith("output"):
            schedule = s_tir.Schedule(step.function)
            (stage,) = schedule.get_child_blocks(schedule.get_sblock("root"))
            found.append(unblocking(schedule, stage, AVX2.vector))
    return found


def flat(sketch: Sketch, value: Node) -> Node:
    n, c, h, w = value.meta["spec"].shape
    return sketch.call(aten.reshape.default, value, [n, c, h * w])


@pytest.mark.parametrize("channels", [1, 21, 32])
@pytest.mark.parametrize("size", [(2, 3, 5), (1, 1, 16), (1, 71, 67)], ids=["few pixels", "one square", "many"])
def test_outputs_are_plain(size: tuple[int, int, int], channels: int) -> None:
    n, h, w = size
    sketch = Sketch()
    value = sketch.conv(sketch.input(n, 16, h, w), channels)
    model = sketch.model(value, flat(sketch, value))
    check(model, numbers(n, 16, h, w), threads=2)


def test_outputs_are_copied_by_squares() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.input(1, 16, 9, 11), 21))
    assert unblocked(model) != []
    assert None not in unblocked(model)


class Rows:
    """Registers that are arrays."""

    def keep(self, value: np.ndarray) -> np.ndarray:
        return value


@pytest.mark.parametrize("lanes", [unit.lanes for unit in (Sse(), Avx2(), Avx512())])
def test_squares_are_transposed(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(vectors: list[np.ndarray], places: list[int]) -> np.ndarray:
        return np.concatenate(vectors)[places]

    monkeypatch.setattr(transposition.tirx, "Shuffle", shuffled)
    monkeypatch.setattr(transposition, "int32", int)
    matrix = np.arange(lanes * lanes).reshape(lanes, lanes)
    columns = transposition.transposed(Rows(), list(matrix))  # type: ignore[arg-type]
    assert np.array_equal(columns, matrix.T)

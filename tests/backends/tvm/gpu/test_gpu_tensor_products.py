"""Products of two matrices that are made as the model runs, by the emulated tensor cores."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from cuda_on_cpu import EmulationError
from gpu_models import emulate, lowered, needs_nvrtc, spills, uses
from sketch import Sketch, aten, numbers
from test_integer import whole

from lvc.backends.tvm.gpu.kernels import tensor_batch_matmul
from lvc.backends.tvm.gpu.kernels.matrix_factors import MOST_PAIRS
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer

pytestmark = needs_nvrtc
MMA = "LVC_MMA(lvc_"
SIZES = [(3, 30, 70, 50), (2, 64, 64, 64), (3, 9, 13, 33), (1, 40, 36, 1024)]


def halves(dtype: str, batch: int, m: int, n: int, k: int) -> Model:
    s = Sketch()
    made = s.call(aten.matmul.default, s.input(batch, m, k), s.input(batch, k, n), group="g")
    return lowered(s.model(s.call(aten.relu.default, made, group="g")), dtype)


@pytest.mark.parametrize(("dtype", "target"), [("float16", 75), ("float16", 80), ("bfloat16", 80)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_halves(dtype: str, target: int, size: tuple[int, int, int, int]) -> None:
    batch, m, n, k = size
    given = numbers(batch, m, k), numbers(batch, k, n)
    emulated = emulate(halves(dtype, *size), *given, target=f"cuda:sm_{target}")
    assert uses(emulated, MMA) == 1
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.parametrize("tile", WARP_TILES, ids=str)
def test_every_tile(tile: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of halves and of bytes, with rows, columns and terms that end within one."""
    monkeypatch.setattr(tensor_batch_matmul, "WARP_TILES", (tile,))
    found = emulate(halves("float16", 1, 70, 136, 72), numbers(1, 70, 72), numbers(1, 72, 136))
    s = Sketch()
    x, y = s.input(1, 70, 72, dtype=torch.uint8), s.input(1, 72, 136, dtype=torch.uint8)
    given = whole(0, torch.uint8, 1, 70, 72), whole(1, torch.uint8, 1, 72, 136)
    other = emulate(s.model(s.call(integer.matmul, x, y, 1, 254)), *given)
    for emulated in (found, other):
        assert uses(emulated, MMA) == 1
        assert not spills(emulated)
        assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.parametrize("dtypes", [*product([torch.uint8, torch.int8], repeat=2)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bytes(dtypes: tuple[torch.dtype, torch.dtype], size: tuple[int, int, int, int]) -> None:
    """Every byte of the integer oracle; zero points at both ends, in the middle, and where nothing has to be added."""
    batch, m, n, k = size
    low, high = ([getattr(torch.iinfo(dtype), end) for dtype in dtypes] for end in ("min", "max"))
    s = Sketch()
    outputs = []
    for zeros in ((low[0], high[1]), (high[0], low[1]), (7, 9), (0, 128 if low[1] == 0 else 0)):
        x, y = s.input(batch, m, k, dtype=dtypes[0]), s.input(batch, k, n, dtype=dtypes[1])
        outputs.append(s.call(integer.matmul, x, y, *zeros))
    given = [
        whole(seed, dtype, batch, *shape)
        for seed in range(4)
        for dtype, shape in zip(dtypes, ((m, k), (k, n)), strict=True)
    ]
    emulated = emulate(s.model(*outputs), *given)
    assert uses(emulated, MMA) == 4
    assert not spills(emulated)
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


@pytest.mark.parametrize("deeper", [0, 4])
def test_bytes_as_far_from_zero_as_they_can_be(deeper: int) -> None:
    """At the depth to which all four sums fit together, and beyond it, where the general kernel computes them."""
    depth = MOST_PAIRS + deeper
    s = Sketch()
    x, y = s.input(1, 8, depth, dtype=torch.uint8), s.input(1, depth, 8, dtype=torch.uint8)
    given = np.full((1, 8, depth), 255, np.uint8), np.zeros((1, depth, 8), np.uint8)
    emulated = emulate(s.model(s.call(integer.matmul, x, y, 0, 255)), *given)
    assert uses(emulated, MMA) == (0 if deeper else 1)


def bytes_of_zeros(edit: Callable[[str], str]) -> None:
    s = Sketch()
    x, y = s.input(1, 16, 64, dtype=torch.uint8), s.input(1, 64, 16, dtype=torch.uint8)
    given = whole(0, torch.uint8, 1, 16, 64), whole(1, torch.uint8, 1, 64, 16)
    emulate(s.model(s.call(integer.matmul, x, y, 3, 250)), *given, edit=edit)


def halves_of(edit: Callable[[str], str]) -> None:
    emulate(halves("float16", 1, 32, 32, 64), numbers(1, 32, 64), numbers(1, 64, 32), edit=edit)


SABOTAGE = {
    "terms that are not transposed": (halves_of, r"LVC_TURNED\(", "LVC_MATRICES("),
    "terms of the second factor": (
        halves_of,
        r"(LVC_TURNED\(right.*?)\(\(\(thread % 32\) / 8\) % 2\)",
        r"\1(1 - ((thread % 32) / 8) % 2)",
    ),
    "sums of rows": (bytes_of_zeros, r"(LVC_MMA\(lvc_uint8, of_rows, \d+, )left, 0", r"\1ones, 0"),
    "signs": (bytes_of_zeros, r"\^ \(\(lvc_uint8\)128\)", "^ ((lvc_uint8)127)"),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_wrong_lane_is_found(name: str) -> None:
    run, pattern, by = SABOTAGE[name]
    changed = 0

    def edit(text: str) -> str:
        nonlocal changed
        text, count = re.subn(pattern, by, text)
        changed += count
        return text

    with pytest.raises(AssertionError) as caught:
        run(edit)
    assert changed
    assert isinstance(caught.value, EmulationError) or "Not equal to tolerance" in str(caught.value)


@pytest.mark.parametrize("missing", [r"LVC_BARRIER\(\);", r"LVC_WAIT\(\d\);"])
def test_a_barrier_or_a_wait_that_is_missing_is_found(missing: str) -> None:
    def edit(text: str) -> str:
        return re.sub(missing, "", text, count=1) if MMA in text else text

    with pytest.raises(EmulationError, match="race: shared"):
        emulate(halves("float16", 1, 32, 32, 128), numbers(1, 32, 128), numbers(1, 128, 32), edit=edit)

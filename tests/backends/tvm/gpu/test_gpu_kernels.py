"""Kernels for GPUs in CUDA C, run on the CPU: no race, nothing out of bounds, the numbers of PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gpu_models import build, emulate, lowered, needs_nvrtc, spills, uses
from sketch import Sketch, aten, numbers

from lvc.backends.tvm.gpu import operations
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS
from lvc.backends.tvm.gpu.kernels import conv2d, matmul
from lvc.backends.tvm.gpu.kernels.factors import SINGLE
from lvc.backends.tvm.gpu.kernels.tile import BLOCK_SHARED, SMALLEST, TILES, Size, Tile, choose_tile
from lvc.compiler.errors import CompileError

pytestmark = needs_nvrtc


def test_convolutions_of_every_kind() -> None:
    """3x3, 1x1, strided, in groups, the first layer, ragged channels, dilated and depthwise, with what follows them."""
    s = Sketch()
    image, wide = s.input(2, 3, 15, 13), s.input(1, 10, 9, 9)
    first = s.conv(image, 20, 3, 2, group="a")
    relu = s.call(aten.relu.default, first, group="a")
    depthwise = s.conv(relu, 20, 5, 2, groups=20)
    point = s.conv(depthwise, 24, 1, group="b")
    grouped = s.conv(point, 16, 3, groups=2)
    added = s.call(aten.add.Tensor, s.conv(grouped, 24, 1, group="c"), point, group="c")
    uneven = s.conv(wide, 9, 3)
    pairs = s.conv(wide, 6, 3, groups=2)
    emulated = emulate(s.model(added, uneven, pairs), numbers(2, 3, 15, 13), numbers(1, 10, 9, 9))
    assert not spills(emulated)


def test_dilated_and_unevenly_padded_windows() -> None:
    s = Sketch()
    x = s.input(1, 8, 11, 12)
    weight, bias = s.stored(torch.randn(8, 8, 3, 3) / 8), s.stored(torch.randn(8))
    dilated = s.call(aten.conv2d.default, x, weight, bias, [1, 2], [2, 1], [2, 1], 1)
    edge = s.call(aten.constant_pad_nd.default, x, [1, 2, 0, 1], 0.0)
    padded = s.call(aten.conv2d.default, edge, weight, None, [2, 1], [0, 0], [1, 1], 1)
    emulate(s.model(dilated, padded), numbers(1, 8, 11, 12))


TRANSPOSED = {
    "stride 2": ((12, 20, 4, 4), [2, 2], [1, 1], [0, 0], 1, [1, 1]),
    "more taps than steps": ((12, 20, 5, 4), [2, 3], [2, 1], [1, 0], 1, [1, 1]),
    "fewer taps than steps": ((12, 8, 1, 2), [2, 3], [0, 0], [1, 2], 1, [1, 1]),
    "stride 1": ((12, 8, 3, 3), [1, 1], [1, 1], [0, 0], 1, [1, 1]),
    "in parts": ((512, 4, 4, 4), [2, 2], [1, 1], [0, 0], 1, [1, 1]),
    "uneven": ((12, 9, 3, 2), [3, 1], [0, 1], [1, 0], 1, [1, 1]),
    "dilated": ((12, 8, 3, 3), [2, 1], [2, 0], [1, 0], 1, [2, 3]),
    "groups": ((16, 6, 2, 2), [2, 2], [0, 0], [0, 0], 2, [1, 1]),
    "groups of four": ((16, 4, 3, 3), [2, 2], [1, 1], [1, 1], 2, [1, 1]),
    "plain data": ((3, 8, 3, 3), [2, 2], [1, 1], [0, 0], 1, [1, 1]),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str, dtype: str) -> None:
    shape, *how = TRANSPOSED[name]
    s = Sketch()
    x, weight, bias = (
        s.input(2, shape[0], 5, 6),
        s.stored(torch.randn(*shape)),
        s.stored(torch.randn(shape[1] * how[3])),
    )
    made = s.call(aten.conv_transpose2d.input, x, weight, bias, *how, group="g")
    model = s.model(s.call(aten.relu.default, made, group="g"))
    emulated = emulate(model if dtype == "float32" else lowered(model, dtype), numbers(2, shape[0], 5, 6))
    kinds = {type(getattr(step.schedule, "problem", None)).__name__ for step in emulated.parts.program.steps}
    assert (("Conv2d" if dtype == "float32" else "TensorConv2d") in kinds) == (name != "groups")
    assert not spills(emulated)


def test_deep_sums_over_small_planes_are_made_in_parts() -> None:
    s = Sketch()
    x = s.input(1, 256, 5, 5)
    emulated = emulate(s.model(s.conv(x, 32, 3)), numbers(1, 256, 5, 5))
    launches = [name for name in emulated.counts if name.startswith("conv2d")]
    assert len(launches) == 2
    assert all(count.conflict_free == 1 for count in emulated.counts.values())


SAMPLE = (*TILES[::60], SMALLEST, max(TILES, key=lambda tile: tile.rows * tile.columns))


@pytest.mark.parametrize("tile", SAMPLE, ids=str)
def test_tiles(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pixels, channels and terms that end within one, by copies ahead and by way of registers."""
    monkeypatch.setattr(conv2d, "TILES", (tile,))
    monkeypatch.setattr(matmul, "TILES", (tile,))
    s = Sketch()
    x, rows = s.input(1, 12, 13, 11), s.input(70, 100)
    linear = s.call(aten.linear.default, rows, s.stored(torch.randn(90, 100)), None)
    model = s.model(s.conv(x, 44, 3), linear)
    for target in ("cuda:sm_80", "cuda:sm_75"):
        emulated = emulate(model, numbers(1, 12, 13, 11), numbers(70, 100), target=target)
        assert not spills(emulated)
        assert all(count.conflict_free > 0.85 for count in emulated.counts.values())


@pytest.mark.parametrize("chip", ["t4", "a100", "h100", "orin"])
@pytest.mark.parametrize(
    "size", [(12544, 64, 147), (196, 256, 2304), (49, 512, 2048), (1, 1000, 2048), (40, 40, 32, 12)]
)
def test_no_tile_takes_less_time_than_the_chosen_one(chip: str, size: tuple[int, ...]) -> None:
    gpu, of = CHIPS[chip], Size(*size)
    chosen = choose_tile(gpu, SINGLE, of, TILES)
    cost = (chosen.cycles(gpu, SINGLE, of), chosen.rows * chosen.columns)
    for tile in TILES:
        blocks, steps = tile.blocks(of.rows, of.columns) * of.groups, -(-of.depth // tile.step)
        for parts in range(1, 17):
            if parts == 1 or (steps >= 2 * parts and blocks * parts <= 4 * gpu.multiprocessors):
                other = replace(tile, parts=parts)
                assert (other.cycles(gpu, SINGLE, of), other.rows * other.columns) >= cost


def test_all_tiles_fit() -> None:
    a100 = CHIPS["a100"]
    for tile in TILES:
        assert tile.threads <= 256
        assert tile.team * tile.slices == tile.threads
        assert tile.rows * tile.columns == tile.team * tile.height * tile.width
        assert 2 <= tile.stages(a100) <= 4
        assert 4 * tile.stages(a100) * tile.stage_words <= BLOCK_SHARED <= CAPABILITIES[75].block_shared
        assert tile.together(CHIPS["t4"]) >= 1


@pytest.mark.parametrize(("rows", "columns", "depth"), [(30, 70, 50), (64, 64, 64), (9, 12, 33), (1, 10, 130)])
def test_products(rows: int, columns: int, depth: int) -> None:
    s = Sketch()
    x, bias = s.input(rows, depth), s.stored(torch.randn(columns))
    linear = s.call(aten.linear.default, x, s.stored(torch.randn(columns, depth)), bias, group="g")
    emulate(s.model(s.call(aten.relu.default, linear, group="g")), numbers(rows, depth))


@pytest.mark.parametrize("target", ["cuda:sm_75", "cuda:sm_80"])
@pytest.mark.parametrize(
    ("batch", "rows", "columns", "depth"),
    [((2, 3), 50, 50, 16), ((5,), 37, 41, 29), ((1,), 64, 64, 64), ((), 9, 12, 70), ((1, 2), 20, 24, 700)],
)
def test_products_of_two_activations(batch: tuple[int, ...], rows: int, columns: int, depth: int, target: str) -> None:
    """With rows, columns and terms that end within a tile or a vector, and what follows."""
    s = Sketch()
    x, y = s.input(*batch, rows, depth), s.input(*batch, depth, columns)
    scaled = s.call(
        aten.mul.Tensor, s.call(aten.matmul.default, x, y, group="g"), s.stored(torch.tensor(0.5)), group="g"
    )
    emulated = emulate(s.model(scaled), numbers(*batch, rows, depth), numbers(*batch, depth, columns), target=target)
    assert uses(emulated, "LVC_BARRIER") == 1
    assert not spills(emulated)


@pytest.mark.parametrize("batch", [(1, 3), (2, 1)])
def test_products_that_share_a_matrix(batch: tuple[int, int]) -> None:
    """By the general kernel."""
    s = Sketch()
    x, y, square = s.input(batch[0], 10, 12), s.input(batch[1], 12, 9), s.input(2, 10, 10)
    outputs = [s.call(aten.matmul.default, x, y), s.call(aten.matmul.default, square, square)]
    emulate(s.model(*outputs), numbers(batch[0], 10, 12), numbers(batch[1], 12, 9), numbers(2, 10, 10))


def test_normalisations_softmax_and_reductions() -> None:
    s = Sketch()
    x, image = s.input(2, 9, 70), s.input(1, 6, 7, 7)
    scale, shift = s.stored(torch.randn(70)), s.stored(torch.randn(70))
    outputs = [
        s.call(aten.layer_norm.default, x, [70], scale, shift, 1e-5),
        s.call(aten.softmax.int, x, -1),
        s.call(aten.softmax.int, x, 1),
        s.call(aten.mean.dim, image, [2, 3], True),
        s.call(aten.amax.default, x, [2], False),
        s.call(aten.argmax.default, x, 1, False),
        s.call(aten.sum.dim_IntList, x, [0, 1, 2], False),
    ]
    emulate(s.model(*outputs), numbers(2, 9, 70), numbers(1, 6, 7, 7))


def test_windows_movement_and_resampling() -> None:
    s = Sketch()
    x = s.input(1, 8, 9, 10)
    blocked = s.conv(x, 12, 1)
    outputs = [
        s.call(aten.max_pool2d.default, blocked, [3, 3], [2, 2], [1, 1], [1, 1], False),
        s.call(aten.avg_pool2d.default, x, [2, 2], [2, 2], [1, 1], False, True, None),
        s.call(aten.adaptive_avg_pool2d.default, blocked, [2, 3]),
        s.call(aten.upsample_bilinear2d.vec, blocked, [18, 20], False, None),
        s.call(aten.upsample_nearest2d.vec, x, [12, 13], None),
        s.call(aten.permute.default, x, [0, 2, 3, 1]),
        s.call(aten.cat.default, [x, blocked], 1),
        s.call(aten.roll.default, x, [3, 14], [2, 3]),
        s.call(aten.gelu.default, s.call(aten.slice.Tensor, blocked, 1, 1, 11)),
    ]
    emulate(s.model(*outputs), numbers(1, 8, 9, 10))


@pytest.mark.parametrize(("value", "order"), [(np.nan, 0), (np.nan, 1), (np.inf, 0), (-np.inf, 1)])
def test_no_number_and_infinity_go_on(value: float, order: int) -> None:
    s = Sketch()
    x = s.input(1, 40)
    maximum = s.call(aten.amax.default, x, [1], False)
    relu = s.call(aten.relu.default, x)
    given = numbers(1, 40)
    given[0, 7 if order else 39] = value
    emulate(s.model(maximum, relu), given)


def test_functions_and_divisions() -> None:
    s = Sketch()
    x, y = s.input(3, 20), s.input(3, 20, dtype=torch.int64)
    functions = (aten.ceil, aten.sinh, aten.exp, aten.erf, aten.sigmoid, aten.round, aten.atan)
    outputs = [s.call(function.default, x) for function in functions]
    divided = s.call(aten.remainder.Tensor, y, s.stored(torch.tensor([3])))
    whole = np.random.default_rng(0).integers(-50, 50, (3, 20))
    emulate(s.model(*outputs, divided), numbers(3, 20), whole)


def test_what_has_no_kernel_is_an_error_that_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_FUNCTIONS", frozenset())
    s = Sketch()
    with pytest.raises(CompileError, match="no kernel for GPUs can be made for sinh_default") as caught:
        build(s.model(s.call(aten.sinh.default, s.input(1, 977))))
    assert "cannot call tirx.sinh of float32" in caught.value.why

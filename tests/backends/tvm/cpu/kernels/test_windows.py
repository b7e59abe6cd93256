"""Depthwise convolution and pooling against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import blocked, check, random, written

from lvc.backends.tvm.cpu.kernels import depthwise, pool2d, window_nest
from lvc.backends.tvm.cpu.kernels.depthwise import Depthwise
from lvc.backends.tvm.cpu.kernels.pool2d import Pool2d
from lvc.backends.tvm.cpu.kernels.windows import Axis

SAME = (1, 1, 1, 1)


@pytest.fixture(params=[window_nest.MOST_EDGE_TAPS, 0], ids=["", "copied"])
def edges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps at the edges one by one, and from a copy of the rows with their padding."""
    monkeypatch.setattr(window_nest, "MOST_EDGE_TAPS", request.param)


def check_depthwise(problem: Depthwise) -> None:
    p = problem
    data, weight = random(p.batch, p.channels, p.height, p.width), random(p.channels * p.multiplier, 1, *p.kernel)
    top, left, bottom, right = p.padding
    padded = torch.nn.functional.pad(torch.from_numpy(data), (left, right, top, bottom))
    sums = torch.nn.functional.conv2d(padded, torch.from_numpy(weight), None, p.stride, 0, p.dilation, p.channels)
    check(depthwise, p, [blocked(data, p.block), depthwise.pack_weight(p, weight)], sums)


@pytest.mark.usefixtures("edges")
@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(Depthwise(1, 16, 14, 14, (3, 3), padding=SAME), id="3x3"),
        pytest.param(Depthwise(2, 19, 9, 13, (3, 5), (2, 1), (0, 3, 2, 1), (1, 2)), id="uneven"),
        pytest.param(Depthwise(1, 8, 3, 3, (5, 5), padding=(2, 2, 2, 2)), id="kernel past the image"),
        pytest.param(Depthwise(1, 8, 20, 20, (3, 3), padding=(12, 12, 12, 12), dilation=(12, 12)), id="dilated"),
        pytest.param(Depthwise(1, 24, 15, 15, (7, 7), (2, 2), (3, 3, 3, 3)), id="7x7, stride 2"),
        pytest.param(Depthwise(1, 8, 6, 9, (3, 3)), id="no padding"),
        pytest.param(Depthwise(1, 8, 20, 37, (31, 27), padding=(15, 13, 15, 13)), id="wide"),
        pytest.param(Depthwise(1, 16, 9, 14, (3, 3), padding=SAME, multiplier=2), id="2 windows"),
        pytest.param(Depthwise(2, 21, 8, 11, (3, 1), (2, 1), (1, 0, 1, 0), multiplier=3), id="3 windows, uneven"),
        pytest.param(Depthwise(1, 3, 7, 9, (3, 3), padding=SAME, multiplier=8), id="8 windows"),
        pytest.param(Depthwise(1, 5, 7, 9, (1, 3), padding=(0, 1, 0, 1), multiplier=5), id="5 windows"),
    ],
)
def test_depthwise_matches_pytorch(problem: Depthwise) -> None:
    check_depthwise(problem)


@pytest.mark.usefixtures("edges")
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 30)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 4)] * 4),
)
def test_depthwise_matches_pytorch_on_any_shape(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    check_depthwise(Depthwise(1, 11, *size, kernel, stride, padding))


Size = int | tuple[int, int]


def check_pool(
    kind: str, shape: tuple[int, int, int, int], window: tuple[Size, Size, Size], block: int = 8, **how: object
) -> None:
    """``window`` is its size, its stride and the padding on every side; ``how`` goes to PyTorch."""
    size, stride, padding = ((one, one) if isinstance(one, int) else one for one in window)
    data = random(*shape)
    torch_pool = torch.nn.functional.max_pool2d if kind == "max" else torch.nn.functional.avg_pool2d
    sums = torch_pool(torch.from_numpy(data), size, stride, padding, **how)
    problem = Pool2d(
        kind,
        *shape,
        *sums.shape[2:],
        size,
        stride,
        (*padding, *padding),
        (int(str(how.get("dilation", 1))),) * 2,
        bool(how.get("count_include_pad", True)),
        how.get("divisor_override"),  # type: ignore[arg-type]
        block,
    )
    check(pool2d, problem, [blocked(data, block)], sums)


@pytest.mark.usefixtures("edges")
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pool_matches_pytorch(kind: str, ceil_mode: bool) -> None:
    check_pool(kind, (2, 13, 10, 12), (3, 2, 1), ceil_mode=ceil_mode)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "ceil_mode"),
    [((8, 64), (8, 64), 0, False), ((21, 45), (1, 2), (10, 22), True), ((1, 33), (1, 3), (0, 16), True)],
)
def test_wide_pool_matches_pytorch(kind: str, size: Size, stride: Size, padding: Size, ceil_mode: bool) -> None:
    check_pool(kind, (1, 11, 24, 70), (size, stride, padding), ceil_mode=ceil_mode)


def test_code_does_not_grow_with_the_window() -> None:
    """LLVM's time grows faster than the code: an 8 x 32 maximum took it longer than anyone waited."""

    def pool(size: int, padding: int) -> int:
        shape = (1, 2, 130 + size - 2 * padding, 130 + size - 2 * padding, 8)
        problem = Pool2d("max", 1, 16, *shape[2:4], 131, 131, (size, size), (1, 1), (padding,) * 4)
        return written(pool2d, problem, shape)

    def rows(size: int) -> int:
        problem = Depthwise(1, 16, 130, 130, (size, size), padding=(size // 2,) * 4)
        return written(depthwise, problem, (1, 2, 130, 130, 8), depthwise.packed_shape(problem))

    assert pool(64, 0) < 1.2 * pool(16, 0)
    assert pool(64, 32) < 2 * pool(16, 8)
    assert rows(101) < 1.5 * rows(49)


def test_average_can_leave_out_the_padding() -> None:
    check_pool("avg", (1, 16, 9, 10), (3, 2, 1), count_include_pad=False, ceil_mode=True)


def test_average_with_a_divisor_of_its_own() -> None:
    check_pool("avg", (1, 8, 6, 6), (2, 2, 0), divisor_override=3)


def test_dilated_maximum() -> None:
    check_pool("max", (1, 8, 10, 13), (3, 1, 1), dilation=2)


def test_pool_of_plain_data() -> None:
    check_pool("max", (1, 5, 12, 14), (3, 2, 1), block=0)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.tuples(*[st.integers(0, 4)] * 2))
def test_taps_are_those_inside_the_image(
    size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]
) -> None:
    before, after = padding
    outputs = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    if outputs < 1:
        return
    axis = Axis(size, outputs, kernel, stride, dilation, before)
    inside = np.array([[axis.is_inside(output, tap) for tap in range(kernel)] for output in range(outputs)])
    first, end = axis.clear
    assert inside[first:end].all()
    assert not inside.all(axis=1)[:first].any()
    assert not inside.all(axis=1)[end:].any()
    for output in range(outputs):
        start, count = (int(value) for value in axis.taps(output))
        assert [tap for tap in range(kernel) if inside[output, tap]] == list(range(start, start + count))

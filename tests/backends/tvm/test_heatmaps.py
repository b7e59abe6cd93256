"""Peaks of heat maps that are resized to computed sizes, in PyTorch and built, against `F.interpolate` and `argmax`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from torch.nn import functional as F

from lvc.backends.tvm import BACKEND
from lvc.compiler.ir.operators import heatmaps
from lvc.compiler.pipeline.workspace import Workspace


class Built:
    """Code for maps of a shape and a type."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        sketch, target = Sketch(), BACKEND.parse_target("native")
        assert target is not None
        found = sketch.call(
            heatmaps.peaks, sketch.input(*shape, dtype=dtype), sketch.input(shape[0], 2, dtype=torch.int64)
        )
        self.run = BACKEND.load(BACKEND.build(sketch.model(found), target, Workspace(threads=1)), 2)

    def __call__(self, maps: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.run(maps.numpy(), sizes.numpy())[0])


def check(maps: torch.Tensor, sizes: torch.Tensor, found: torch.Tensor) -> None:
    """Demand the largest elements; of equal ones the first, but for what rounding may decide."""
    assert (found.shape, found.dtype) == ((*maps.shape[:2], 3), maps.dtype)
    for one, size, peaks in zip(maps.double(), sizes.tolist(), found.double(), strict=True):
        resized = F.interpolate(one.unsqueeze(0), size=size, mode="bicubic", align_corners=False)[0].flatten(1)
        best, first = resized.max(1)
        rounding = 1e-5 * one.nan_to_num().abs().amax((1, 2)) if maps.dtype is torch.float32 else 1e-14
        place = (peaks[:, 0] * size[1] + peaks[:, 1]).to(torch.int64)
        there, value = resized.gather(1, place.unsqueeze(1)).squeeze(1), peaks[:, 2]
        none = best.isnan()
        assert torch.equal(value.isnan(), none)
        assert torch.equal(place[none], first[none])
        assert ((best - there).abs() <= rounding)[~none].all()
        assert ((best - value).abs() <= rounding)[~none].all()
        earlier = torch.arange(resized.shape[1]) < place.unsqueeze(1)
        clearly = resized >= best.unsqueeze(1)
        is_whole = one.shape[1:] == torch.Size(size)  # nothing is rounded then
        assert not (is_whole and (earlier & clearly)[~none].any())


CASES = [((2, 3, 7, 5), torch.float64), ((3, 1, 1, 1), torch.float32), ((4, 2, 20, 33), torch.float32)]


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_built_code_finds_the_largest_elements(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Maps of few values, of which many are equal, and in some no numbers."""
    generator, built = torch.Generator().manual_seed(sum(shape)), Built(shape, dtype)
    for turn in range(6):
        maps = torch.randint(-2, 3, shape, generator=generator).to(dtype) - 3
        maps[0][torch.rand(shape[1:], generator=generator) < 0.01] = torch.nan
        sizes = torch.randint(1, 150, (shape[0], 2), generator=generator)
        sizes = torch.tensor(shape[2:]).expand_as(sizes).contiguous() if turn == 0 else sizes
        sizes[0] = torch.tensor(shape[2:]) * 4  # so that rounding does not decide who reads what is no number
        check(maps, sizes, built(maps, sizes))
        check(maps, sizes, heatmaps.peaks(maps, sizes))


def test_the_first_of_equal_elements_is_found() -> None:
    maps = torch.zeros(3, 2, 9, 40)
    maps[1, :, 5, 33] = maps[1, :, 5, 35] = maps[1, :, 6, 0] = 1
    maps[2] = -torch.inf
    sizes, places = torch.tensor([[9, 40]] * 3), [[0.0, 0.0], [5.0, 33.0], [0.0, 0.0]]
    for found in (Built(tuple(maps.shape), torch.float32)(maps, sizes), heatmaps.peaks(maps, sizes)):
        assert found[:2, :, :2].tolist() == [[place] * 2 for place in places[:2]]


def test_sizes_out_of_bounds_have_no_peak() -> None:
    sizes = torch.tensor([[0, 5], [5, -1], [1 << 40, 5], [5, heatmaps.LONGEST + 1], [5, 5]])
    maps = torch.rand(5, 2, 4, 4)
    for found in (Built((5, 2, 4, 4), torch.float32)(maps, sizes), heatmaps.peaks(maps, sizes)):
        assert found[:4].isnan().all()
        check(maps[4:], sizes[4:], found[4:])


@settings(max_examples=20)
@given(
    st.integers(0, 1 << 20), st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 90)] * 2), st.booleans()
)
def test_a_peak_is_that_of_the_map_as_pytorch_resizes_it(
    seed: int, shape: tuple[int, int], size: tuple[int, int], is_smooth: bool
) -> None:
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(seed))
    maps = F.avg_pool2d(maps, 3, 1, 1) if is_smooth else maps
    sizes = torch.tensor([size, size[::-1]])
    check(maps, sizes, heatmaps.peaks(maps, sizes))


@pytest.mark.parametrize(
    ("maps", "sizes"),
    [
        (torch.zeros(2, 3, 4), torch.ones(2, 2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 4), torch.ones(3, 2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 4), torch.ones(2, 2)),
        (torch.zeros(2, 3, 0, 4), torch.ones(2, 2, dtype=torch.int64)),
    ],
)
def test_what_is_no_map_is_refused(maps: torch.Tensor, sizes: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="are no"):
        heatmaps.peaks(maps, sizes)

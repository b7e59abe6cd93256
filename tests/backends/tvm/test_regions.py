"""Regions of interest, built for this processor, against torchvision and against their meaning in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, aten, numbers

import lvc
from lvc.compiler.ir.operators import regions
from lvc.compiler.pipeline.observers import relative_difference

ops = pytest.importorskip("torchvision.ops")


def drawn_regions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions ``[count, 5]`` inside, across and outside of maps of some 20 coordinates, and a level for each of two."""
    random = np.random.default_rng(seed)
    low = random.uniform(-6, 24, (count, 2))
    high = low + random.uniform(0, 20, (count, 2)).round()
    images = random.integers(0, 2, (count, 1))
    return np.concatenate([images, low, high], 1).astype(np.float32), random.integers(0, 2, count)


@settings(max_examples=6, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
def test_regions_are_those_of_torchvision(
    sizes: tuple[int, int, int], samples: int, aligned: bool, dtype: torch.dtype, seed: int
) -> None:
    channels, *cells = sizes
    places, levels = drawn_regions(9, seed)
    s, random = Sketch(), np.random.default_rng(seed)
    maps = [random.standard_normal((2, channels, *size)).astype(str(dtype)[6:]) for size in ((9, 13), (5, 7))]
    inputs = [s.input(*x.shape, dtype=dtype) for x in maps]
    rois, level = s.input(9, 5, dtype=dtype), s.input(9, dtype=torch.int64)
    scales = [0.5, 0.25]
    model = s.model(s.call(regions.roi_align, inputs, rois, level, scales, cells, samples, aligned))
    given = *maps, places.astype(str(dtype)[6:]), levels
    wanted = np.zeros((9, channels, *cells), maps[0].dtype)
    for k, number in enumerate(levels):
        x, one = torch.from_numpy(maps[number]), torch.from_numpy(given[2][k : k + 1])
        wanted[k] = ops.roi_align(x, one, cells, scales[number], samples or -1, aligned)[0].numpy()
    built = lvc.load(lvc.compile(model, "", "native", verify=False))(*given)
    for found in (model(*given)[0], built):
        assert relative_difference(found, wanted) < 1e-6


@pytest.mark.parametrize("reader", ["conv", "linear"])
def test_maps_in_blocks_are_read_where_they_lie(reader: str) -> None:
    """Maps that convolutions make, with more channels than a vector has, for a convolution and for a matrix."""
    s = Sketch()
    x, rois, level = s.input(2, 3, 18, 22), s.input(9, 5), s.input(9, dtype=torch.int64)
    first = s.conv(x, 40, 3, 2)
    second = s.conv(first, 40, 3, 2)
    found = s.call(regions.roi_align, [first, second], rois, level, [0.5, 0.25], [3, 3], 2, False)
    flat = s.conv(found, 8, 3) if reader == "conv" else s.call(aten.reshape.default, found, [9, 360])
    model, given = s.model(flat), (numbers(2, 3, 18, 22), *drawn_regions(9, 4))
    assert (
        relative_difference(lvc.load(lvc.compile(model, "O2", "native", verify=False))(*given), model(*given)[0]) < 1e-5
    )


def test_levels_and_images_that_there_are_not_are_the_last() -> None:
    s = Sketch()
    x, rois, level = s.input(2, 3, 9, 9), s.input(4, 5), s.input(4, dtype=torch.int64)
    model = s.model(s.call(regions.roi_align, [x], rois, level, [1.0], [2, 2], 1, True))
    places = np.array([[0, 1, 1, 5, 5], [1, 1, 1, 5, 5], [7, 1, 1, 5, 5], [-3, 1, 1, 5, 5]], np.float32)
    given = numbers(2, 3, 9, 9), places, np.array([0, 5, -1, 0])
    found = lvc.load(lvc.compile(model, "", "native", verify=False))(*given)
    np.testing.assert_array_equal(found[2], found[1])
    np.testing.assert_array_equal(found[3], found[0])
    assert relative_difference(found, model(*given)[0]) < 1e-6


def test_a_region_that_is_no_number_is_zero() -> None:
    s = Sketch()
    x, rois, level = s.input(1, 3, 9, 9), s.input(2, 5), s.input(2, dtype=torch.int64)
    model = s.model(*(s.call(regions.roi_align, [x], rois, level, [1.0], [2, 2], n, True) for n in (0, 2)))
    places = np.array([[0, np.nan, 1, 5, 5], [0, 5, 5, 1, 1]], np.float32)
    given = numbers(1, 3, 9, 9), places, np.zeros(2, np.int64)
    found = lvc.load(lvc.compile(model, "", "native", verify=False))(*given)
    for ours, theirs in zip(found, model(*given), strict=True):
        assert not ours[0].any()
        assert relative_difference(ours, theirs) < 1e-6

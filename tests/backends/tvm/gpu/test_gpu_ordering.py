"""Sorting, writing at computed places and non-maximum suppression on the emulated GPU, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_models import emulate, needs_nvrtc
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, aten, numbers
from test_ordering import ties

from lvc.compiler.ir.operators import ordering

pytestmark = needs_nvrtc
RANDOM = np.random.default_rng(6)


@pytest.mark.parametrize("size", [1, 2, 7, 301])
def test_argsort_is_stable(size: int) -> None:
    s = Sketch()
    x, whole, truth = s.input(3, size), s.input(2, 2, size, dtype=torch.int64), s.input(3, size, dtype=torch.bool)
    orders = [s.call(ordering.argsort, value, down) for value in (x, whole, truth) for down in (False, True)]
    orders += [s.call(ordering.argsort, value, down, (size + 1) // 2) for value in (x, truth) for down in (False, True)]
    given = ties(3, size), RANDOM.integers(-3, 3, (2, 2, size)), RANDOM.random((3, size)) < 0.5
    emulate(s.model(*orders), *given)


@pytest.mark.parametrize("reduce", ordering.REDUCTIONS)
def test_scatter_goes_from_the_first_update_to_the_last(reduce: str) -> None:
    s = Sketch()
    x, index, updates = s.input(3, 200), s.input(3, 9, dtype=torch.int64), s.input(3, 9)
    flags, set = s.input(3, 200, dtype=torch.bool), s.input(3, 9, dtype=torch.bool)
    made = [s.call(ordering.scatter, x, index, updates, reduce), s.call(ordering.scatter, flags, index, set, reduce)]
    places = RANDOM.integers(0, 4, (3, 9)) * 60
    truth = RANDOM.random((3, 200)) < 0.5, RANDOM.random((3, 9)) < 0.5
    emulate(s.model(*made), ties(3, 200), places, RANDOM.integers(-3, 4, (3, 9)).astype(np.float32), *truth)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 150), st.sampled_from([0.0, 0.3, 0.7]), st.booleans(), st.integers(0, 9))
def test_nms_strikes_out_what_overlaps_a_better_box(size: int, threshold: float, by_groups: bool, seed: int) -> None:
    s, random = Sketch(), np.random.default_rng(seed)
    boxes, valid = s.input(2, size, 4), s.input(2, size, dtype=torch.bool)
    groups = [s.input(2, size, dtype=torch.int64)] if by_groups else []
    corners = random.random((2, size, 2, 2)).astype(np.float32) * 4
    ends = np.concatenate([corners.min(2), corners.max(2)], -1)
    given = ends, random.random((2, size)) < 0.8, *([random.integers(0, 3, (2, size))] if by_groups else [])
    emulate(s.model(s.call(ordering.nms, boxes, valid, threshold, *groups)), *given)


def test_what_is_sorted_may_lie_in_blocks_and_what_follows_reads_it() -> None:
    s = Sketch()
    x = s.conv(s.input(1, 8, 6, 5), 12, 1)
    order = s.call(ordering.argsort, x, True)
    emulate(s.model(s.call(aten.gather.default, x, 3, order)), numbers(1, 8, 6, 5))

"""Sorting, writing at computed places and non-maximum suppression, built, against their meaning in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sketch import Sketch, check

from lvc.backends.tvm import BACKEND
from lvc.compiler.backend import Target
from lvc.compiler.ir.operators import ordering
from lvc.compiler.pipeline.workspace import Workspace

RANDOM = np.random.default_rng(5)


def ties(*shape: int) -> np.ndarray:
    """Numbers of which many are equal, with infinities and NaN of both kinds among them."""
    values = RANDOM.integers(-4, 5, shape).astype(np.float32)
    values[RANDOM.random(shape) < 0.1] = np.nan
    values[RANDOM.random(shape) < 0.1] = -np.inf
    return values


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 301])
def test_argsort_is_stable(size: int) -> None:
    sketch = Sketch()
    x, whole = sketch.input(3, size), sketch.input(2, 2, size, dtype=torch.int64)
    orders = [sketch.call(ordering.argsort, value, down) for value in (x, whole) for down in (False, True)]
    check(sketch.model(*orders), ties(3, size), RANDOM.integers(-3, 3, (2, 2, size)))


NUMBERS = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)


def keys(dtype: torch.dtype, *shape: int) -> np.ndarray:
    """Keys of which many are equal, with the ends of what a type can hold, and of floats zeros of both signs."""
    if dtype is torch.bool:
        return RANDOM.random(shape) < 0.4
    name = str(dtype).removeprefix("torch.")
    if dtype.is_floating_point:
        values = ties(*shape).astype(name)
        values[RANDOM.random(shape) < 0.2] = -0.0
        values[RANDOM.random(shape) < 0.1] = np.finfo(name).smallest_subnormal
        values[RANDOM.random(shape) < 0.05] = np.float32(-np.nan)
        values[RANDOM.random(shape) < 0.05] = np.inf
        return values
    ends = np.iinfo(name)
    values = RANDOM.integers(0 if ends.min == 0 else -4, 5, shape).astype(name)
    values[RANDOM.random(shape) < 0.1] = ends.max
    values[RANDOM.random(shape) < 0.1] = ends.min
    return values


@pytest.mark.parametrize(
    ("size", "most"), [(1, 1), (2, 1), (16, 15), (17, 16), (40, 2), (65, 64), (301, 300), (999, 7)]
)
def test_the_first_few_are_those_that_stand_first_in_the_whole_order(size: int, most: int) -> None:
    sketch = Sketch()
    inputs = [sketch.input(3, size, dtype=dtype) for dtype in NUMBERS]
    few = [sketch.call(ordering.argsort, x, down, most) for x in inputs for down in (False, True)]
    check(sketch.model(*few), *(keys(dtype, 3, size) for dtype in NUMBERS))


def test_the_first_few_of_equal_keys_are_those_before() -> None:
    sketch = Sketch()
    x, none = sketch.input(2, 100), sketch.input(2, 100)
    few = [sketch.call(ordering.argsort, value, down, 33) for value in (x, none) for down in (False, True)]
    check(sketch.model(*few), np.ones((2, 100), np.float32), np.full((2, 100), np.nan, np.float32))


@pytest.mark.parametrize("shape", [(300,), (1, 300), (3, 300)])
def test_the_nest_of_argsort_is_taken_as_it_is(shape: tuple[int, ...]) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.call(ordering.argsort, sketch.input(*shape), True))
    artefact = BACKEND.build(model, Target.parse("native"), Workspace(threads=1))
    assert artefact.metadata["remarks"] == []
    check(model, ties(*shape))


def test_argsort_puts_false_before_true() -> None:
    sketch = Sketch()
    x = sketch.input(3, 40, dtype=torch.bool)
    check(
        sketch.model(*(sketch.call(ordering.argsort, x, down) for down in (False, True))), RANDOM.random((3, 40)) < 0.5
    )


@pytest.mark.parametrize("reduce", ordering.REDUCTIONS)
def test_truth_is_combined_as_truth(reduce: str) -> None:
    sketch = Sketch()
    x, index = sketch.input(3, 20, dtype=torch.bool), sketch.input(3, 9, dtype=torch.int64)
    updates = sketch.input(3, 9, dtype=torch.bool)
    given = RANDOM.random((3, 20)) < 0.5, RANDOM.integers(0, 20, (3, 9)), RANDOM.random((3, 9)) < 0.5
    check(sketch.model(sketch.call(ordering.scatter, x, index, updates, reduce)), *given)


@pytest.mark.parametrize("reduce", ordering.REDUCTIONS)
def test_scatter_goes_from_the_first_update_to_the_last(reduce: str) -> None:
    sketch = Sketch()
    x, index = sketch.input(3, 5), sketch.input(3, 9, dtype=torch.int64)
    whole, updates = sketch.input(3, 5, dtype=torch.int64), sketch.input(3, 9)
    last = sketch.call(torch.ops.aten.to.dtype, updates, torch.int64)
    made = [
        sketch.call(ordering.scatter, x, index, updates, reduce),
        sketch.call(ordering.scatter, whole, index, last, reduce),
    ]
    given = (
        RANDOM.integers(0, 5, (3, 9)),
        RANDOM.integers(-3, 3, (3, 5)),
        RANDOM.integers(-3, 4, (3, 9)).astype(np.float32),
    )
    check(sketch.model(*made), ties(3, 5), *given)


def test_nms_strikes_out_what_overlaps_a_better_box() -> None:
    sketch = Sketch()
    boxes, valid = sketch.input(2, 60, 4), sketch.input(2, 60, dtype=torch.bool)
    kept = [sketch.call(ordering.nms, boxes, valid, threshold) for threshold in (0.0, 0.3, 0.7)]
    corners = RANDOM.random((2, 60, 2, 2)).astype(np.float32) * 4
    ends = np.concatenate([corners.min(2), corners.max(2)], -1)
    ends[0, 7] = ends[0, 3]
    ends[1, 5, 2:] = ends[1, 5, :2]
    check(sketch.model(*kept), ends, RANDOM.random((2, 60)) < 0.8)


def test_nms_leaves_boxes_of_other_groups_alone() -> None:
    sketch = Sketch()
    boxes, valid = sketch.input(2, 60, 4), sketch.input(2, 60, dtype=torch.bool)
    groups = sketch.input(2, 60, dtype=torch.int64)
    corners = RANDOM.random((2, 60, 2, 2)).astype(np.float32) * 4
    ends = np.concatenate([corners.min(2), corners.max(2)], -1)
    kept = sketch.call(ordering.nms, boxes, valid, 0.2, groups)
    model = sketch.model(kept, sketch.call(ordering.nms, boxes, valid, 0.2))
    given = ends, RANDOM.random((2, 60)) < 0.8, RANDOM.integers(0, 3, (2, 60))
    apart, together = model(*given)
    assert apart.sum() > together.sum()
    check(model, *given)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nms_of_many_boxes_is_that_of_one_at_a_time(size: int, dtype: torch.dtype) -> None:
    """Boxes that are equal, empty, turned around or no numbers, and marks that end before the boxes do."""
    sketch = Sketch()
    boxes, valid = sketch.input(4, size, 4, dtype=dtype), sketch.input(4, size, dtype=torch.bool)
    groups = sketch.input(4, size, dtype=torch.int64)
    thresholds = (0.0, 0.25, 0.5, 1.0)
    kept = [sketch.call(ordering.nms, boxes, valid, threshold) for threshold in thresholds]
    kept += [sketch.call(ordering.nms, boxes, valid, threshold, groups) for threshold in thresholds]
    corners = (RANDOM.integers(0, 9, (4, size, 4)) / 2).astype(str(dtype).removeprefix("torch."))
    corners[1, RANDOM.random(size) < 0.2] = np.nan
    corners[2, RANDOM.random(size) < 0.1] = np.inf
    marks = RANDOM.random((4, size)) < 0.8
    marks[1, size // 3 :] = False
    marks[3] = True
    check(sketch.model(*kept), corners, marks, RANDOM.integers(0, 3, (4, size)))

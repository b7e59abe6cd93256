"""Accuracy of the vector functions against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sketch import Sketch, aten

from lvc.backends.tvm import BACKEND
from lvc.compiler.pipeline.workspace import Workspace

# the operator, the range, the exact function, and the units in the last place and the absolute error that are allowed
CASES = (
    (aten.exp.default, -87, 88.7, np.exp, 2, 0),
    (aten.log.default, 1e-30, 1e30, np.log, 2, 0),
    (aten.tanh.default, -12, 12, np.tanh, 6, 4e-7),
    (aten.erf.default, -6, 6, np.vectorize(math.erf), 6, 4e-7),
    (aten.sigmoid.default, -80, 80, lambda x: 1 / (1 + np.exp(-x)), 4, 0),
    (aten.silu.default, -80, 80, lambda x: x / (1 + np.exp(-x)), 4, 0),
)


@pytest.fixture(scope="module")
def functions() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arguments and results of every function."""
    sketch = Sketch()
    arguments, outputs = [], []
    for op, low, high, _, _, _ in CASES:
        spread = np.linspace(low, high, 20000) if low < 0 else np.geomspace(low, high, 20000)
        arguments.append(spread.astype(np.float32))
        outputs.append(sketch.call(op, sketch.input(20000)))
    target = BACKEND.parse_target("native")
    assert target is not None
    results = BACKEND.load(BACKEND.build(sketch.model(*outputs), target, Workspace(threads=1)), 1)(*arguments)
    names = [str(op) for op, *_ in CASES]
    return dict(zip(names, zip(arguments, results, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_accuracy(case: tuple, functions: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    op, _, _, exact, units, absolute = case
    given, found = functions[str(op)]
    wanted = exact(given.astype(np.float64))
    error = np.abs(found - wanted)
    assert np.all(error <= units * np.spacing(np.abs(wanted).astype(np.float32)) + absolute)


def test_limits() -> None:
    sketch = Sketch()
    data = sketch.input(6)
    outputs = [sketch.call(op, data) for op in (aten.exp.default, aten.log.default, aten.sigmoid.default)]
    target = BACKEND.parse_target("native")
    assert target is not None
    executable = BACKEND.load(BACKEND.build(sketch.model(*outputs), target, Workspace(threads=1)), 1)
    exp, log, sigmoid = executable(np.array([-np.inf, -200, 0, 200, np.inf, -1], np.float32))
    np.testing.assert_array_equal(exp[:5], [0, 0, 1, np.inf, np.inf])
    np.testing.assert_array_equal(log, [np.nan, np.nan, -np.inf, np.float32(np.log(200)), np.inf, np.nan])
    np.testing.assert_allclose(sigmoid[:5], [0, 0, 0.5, 1, 1], rtol=0, atol=2e-38)
    assert torch.isfinite(torch.tensor(sigmoid)).all()

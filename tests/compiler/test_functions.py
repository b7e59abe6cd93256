"""How far the exactly defined functions are from those that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lvc.compiler.ir.operators import functions

aten = torch.ops.aten
Function = Callable[[torch.Tensor], torch.Tensor]

# the definition, what it stands for, and the error that is allowed, in units of the result where that is above 1
CASES: dict[str, tuple[Function, Function, float]] = {
    "tanh": (functions.tanh, aten.tanh, 4e-7),
    "gelu": (partial(functions.gelu, approximate="none"), aten.gelu, 1e-6),
    "gelu by tanh": (partial(functions.gelu, approximate="tanh"), partial(aten.gelu, approximate="tanh"), 1e-6),
    "elu": (lambda x: functions.elu(x, 1.3, 0.7, 0.9), lambda x: aten.elu(x, 1.3, 0.7, 0.9), 3e-7),
    "mish": (functions.mish, aten.mish, 3e-7),
    "sigmoid": (functions.sigmoid, aten.sigmoid, 2e-5),
    "silu": (functions.silu, aten.silu, 2e-5),
    "hardsigmoid": (functions.hardsigmoid, aten.hardsigmoid, 3e-7),
    "hardswish": (functions.hardswish, aten.hardswish, 3e-7),
}


@pytest.mark.parametrize("name", CASES)
def test_accuracy(name: str) -> None:
    defined, meant, bound = CASES[name]
    near = torch.linspace(-30, 30, 200_001)
    x = torch.cat([near, near * 1e-6, torch.tensor([0.0, -0.0])])
    found, wanted = defined(x), meant(x.double())
    assert found.dtype is torch.float32
    assert bool(((found - wanted).abs() <= bound * wanted.abs().clamp(min=1)).all())


@pytest.mark.parametrize("name", ["sigmoid", "silu", "hardsigmoid", "hardswish"])
def test_small_results_are_near_too(name: str) -> None:
    """Far nearer than the 255 steps of 8 bits: an error of 8e-5 of the value is a fiftieth of a step."""
    defined, meant, _ = CASES[name]
    x = torch.linspace(-90, 90, 100_001)
    wanted = meant(x.double())
    assert bool(((defined(x) - wanted).abs() <= 8e-5 * wanted.abs() + 1e-7).all())


@pytest.mark.parametrize("name", CASES)
def test_no_number_gives_nan(name: str) -> None:
    values = CASES[name][0](torch.tensor([3e38, -3e38, 1e-44, -1e-44]))
    assert not bool(values.isnan().any())


@pytest.mark.parametrize("name", CASES)
def test_other_types_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="float64"):
        CASES[name][0](torch.zeros(1, dtype=torch.float64))

"""Built code computes what ATen does, for every overload of the PyTorch importer and options drawn at random."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from drawing import Draw
from overloads import OVERLOADS, as_dispatched
from test_torch_importer_overloads import UNWRITTEN, Calls, eager, known_results
from torch import Tensor
from torch._ops import OpOverload

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.pipeline.observers import relative_difference

DTYPES = (torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)
PARTS = 6
"""Models that the calls are spread over."""


def draw_call(overload: OpOverload, seed: int) -> tuple[Calls, list[Tensor]] | None:
    """A call alone, with what ATen makes of it; None if one of the two, or code for the CPU, does not take it."""
    draw = Draw(random.Random(seed), DTYPES)
    args, kwargs = as_dispatched(overload, OVERLOADS[overload](draw))
    try:
        results = known_results(overload, eager(overload, args, kwargs))
        calls = Calls()
        calls.add(overload, args, kwargs, results, draw)
        calls.model()
    except (CompileError, RuntimeError, IndexError):
        return None
    wanted = [result for result in results if result is not None]
    return None if any(x.numel() == 0 for x in (*calls.inputs, *wanted)) else (calls, wanted)


@pytest.mark.parametrize("part", range(PARTS))
def test_built_overloads_are_what_aten_computes(part: int) -> None:
    calls, wanted = Calls(), []
    for overload in list(OVERLOADS)[part::PARTS]:
        seed = next((s for s in range(part, 600, PARTS) if draw_call(overload, s)), None)
        assert seed is not None, overload
        single = draw_call(overload, seed)
        assert single
        calls.extend(single[0])
        wanted += [(overload, result.numpy()) for result in single[1]]
    artefact = lvc.compile(calls.model(), "O0", "native", verify=False)
    found = lvc.load(artefact)(*[np.array(x.numpy(), order="C") for x in calls.inputs])
    for (overload, theirs), ours in zip(wanted, found, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), overload
        if overload not in UNWRITTEN:
            assert relative_difference(ours, theirs) <= 2e-5 or np.allclose(ours, theirs, rtol=0, atol=1e-7), overload


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_factors_that_leave_a_size_as_it_is_or_double_it(mode: str) -> None:
    """PyTorch sets factors aside there, and lays pixels by sizes."""

    class Resized(torch.nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            factors = (1.25, (1.3, 2.1), (2.1, 1.2), 2.0)
            return [torch.nn.functional.interpolate(x, scale_factor=f, mode=mode) for f in factors]

    x = torch.arange(24.0).reshape(1, 2, 3, 4).sin()
    model = lvc.from_module(Resized(), x)
    found = lvc.load(lvc.compile(model, "O0", "native", verify=False))(x.numpy())
    for ours, theirs in zip(found, Resized()(x), strict=True):
        assert relative_difference(ours, theirs.numpy()) <= 1e-5

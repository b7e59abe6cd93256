"""The reference backend gives what the model gives, in as many threads as asked, and leaves PyTorch as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvc.backends.reference import BACKEND
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.pipeline.workspace import Workspace

MODEL = parse_model("""
    model small(x: f32[1,3,8,8])
      @w : f32[4,3,3,3]
      @b : f32[4]
      %conv = conv2d(%x, @w, @b, [2, 2], [1, 1])
      %act = silu(%conv)
      %best = argmax(%act, 1)
      return act=%act, best=%best
""")


@pytest.mark.parametrize("threads", [None, 1])
def test_same_results(threads: int | None) -> None:
    artefact = BACKEND.build(MODEL, Target.parse("reference"), Workspace())
    assert (artefact.inputs, artefact.outputs) == (MODEL.inputs, MODEL.outputs)
    inputs = seeded_inputs(MODEL.inputs, 0)
    before = torch.get_num_threads()
    for found, wanted in zip(BACKEND.load(artefact, threads)(*inputs), MODEL(*inputs), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert torch.get_num_threads() == before


def test_wrong_inputs_are_refused() -> None:
    run = BACKEND.load(BACKEND.build(MODEL, Target.parse("reference"), Workspace()))
    with pytest.raises(UsageError, match=r"input 'x' must be f32\[1,3,8,8\], not f32\[1,3,8,9\]"):
        run(np.zeros((1, 3, 8, 9), np.float32))


def test_same_model_same_bytes() -> None:
    first, second = (BACKEND.build(MODEL.copy(), Target.parse("reference"), Workspace()).files for _ in range(2))
    assert first == second

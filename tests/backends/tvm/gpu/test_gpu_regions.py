"""Regions of interest on the emulated GPU, against their meaning in PyTorch."""

from __future__ import annotations

import pytest
import torch
from gpu_models import emulate, needs_nvrtc
from sketch import Sketch, numbers
from test_regions import drawn_regions

from lvc.compiler.ir.operators import regions

pytestmark = needs_nvrtc


@pytest.mark.parametrize(("samples", "aligned"), [(0, False), (2, True)])
def test_regions_of_a_pyramid(samples: int, aligned: bool) -> None:
    s = Sketch()
    x, rois, level = s.input(2, 5, 9, 11), s.input(7, 5), s.input(7, dtype=torch.int64)
    half = s.conv(x, 5, 3, 2)
    made = s.call(regions.roi_align, [x, half], rois, level, [0.5, 0.25], [3, 2], samples, aligned)
    places, levels = drawn_regions(7, seed=1)
    emulate(s.model(made), numbers(2, 5, 9, 11), places, levels)

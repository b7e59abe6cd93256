"""Convolutions of an image that the model stores: what stands where data is expected need not be computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lvc
from lvc.compiler.ir.graph_text import parse_model

MODEL = """
    model stored(x: f32[1,16,6,6])
      @image : f32[1,8,6,6]
      @weight : f32[{weight}]
      %y = {call}
      %z = add(%y, %x)
      %r = conv2d(%z, @last)
      return z=%z, r=%r
""".replace("      %y", "      @last : f32[16,16,1,1]\n      %y")


@pytest.mark.parametrize(
    ("weight", "call"),
    [
        ("16,8,3,3", "conv2d(@image, @weight, None, [1, 1], [1, 1])"),
        ("16,1,3,3", "conv2d(@image, @weight, None, [1, 1], [1, 1], [1, 1], 8)"),
        ("8,16,3,3", "conv_transpose2d(@image, @weight, None, [1, 1], [1, 1])"),
    ],
)
def test_a_stored_image_is_convolved(weight: str, call: str) -> None:
    model = parse_model(MODEL.format(weight=weight, call=call))
    torch.manual_seed(0)
    for tensor in model.module.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape))
    x = np.random.default_rng(0).standard_normal((1, 16, 6, 6)).astype(np.float32)
    found = lvc.load(lvc.compile(model, "fuse-operators", verify=False))(x)
    for ours, wanted in zip(found, model(x), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)

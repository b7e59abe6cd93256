"""Products of two computed tensors of 8 bits against their definitions, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch
from test_integer import DTYPES, check_exact, whole
from torch.fx import Node

from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.operators import integer
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace


def zero_points(dtype: torch.dtype) -> st.SearchStrategy[int]:
    """The ends of a type, and a number within."""
    limits = torch.iinfo(dtype)
    return st.sampled_from([limits.min, limits.max, 17])


def requantised(sketch: Sketch, sums: Node, largest: int) -> Node:
    """Sums on a grid of 8 bits that the largest of them fill and leave."""
    multiplier = sketch.stored(torch.tensor([300.3 / largest]))
    return sketch.call(integer.requantise, sums, multiplier, 0, 5, -128, 127, group="product")


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_gates(data: st.DataObject) -> None:
    """A gate for each channel, for each element, or for each image of a batch or for all, on either side."""
    draw = data.draw
    n, c, h, w = (draw(st.integers(1, most)) for most in (3, 40, 9, 9))
    gate_shape = draw(st.sampled_from([(n, c, 1, 1), (n, c, h, w), (1, c, h, w), (1, c, 1, 1), (n, 1, h, w)]))
    shapes = [(n, c, h, w), gate_shape]
    if draw(st.booleans()):
        shapes.reverse()
    dtypes = [draw(st.sampled_from(DTYPES)) for _ in shapes]
    sketch = Sketch()
    inputs = [sketch.input(*shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    operands = [value for node, dtype in zip(inputs, dtypes, strict=True) for value in (node, draw(zero_points(dtype)))]
    sums = sketch.call(integer.mul, *operands, group="product")
    values = [whole(draw(st.integers(0, 3)), dtype, *shape) for dtype, shape in zip(dtypes, shapes, strict=True)]
    check_exact(sketch.model(requantised(sketch, sums, 255 * 255)), *values)


class Squeezed(torch.nn.Module):
    """Two blocks with gates, as in EfficientNet and in MobileNetV3, and a product of equals."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 20, 3, 2, 1), torch.nn.Conv2d(20, 6, 1)
        self.gates = torch.nn.ModuleList(torch.nn.Conv2d(20, 20, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.silu(self.first(x))
        x = x * torch.sigmoid(self.gates[0](x.mean((2, 3), keepdim=True)))
        x = x * torch.nn.functional.hardsigmoid(self.gates[1](x.mean((2, 3), keepdim=True)))
        found: torch.Tensor = self.last(torch.relu(x * x.flip(3)))
        return found


def test_a_network_with_gates_is_all_integer_and_exact() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    images = [(random.standard_normal((1, 3, 15, 14)).astype(np.float32), None) for _ in range(6)]
    model = from_module(Squeezed().eval(), torch.zeros(1, 3, 15, 14))
    workspace = Workspace(data={"calib": lambda: images}, threads=1)
    simulated, _ = Pipeline.parse("O1,insert-fake-quant,calibrate").run(model, workspace)
    whole_model, (lowering, _) = Pipeline.parse("lower-to-integer,fuse-operators").run(simulated)
    assert not lowering.outcome.skipped
    assert len(list(calls(whole_model.module.graph, integer.mul))) == 3
    check_exact(whole_model, images[0][0])
    difference = np.linalg.norm(whole_model(images[1][0])[0] - model(images[1][0])[0])
    assert difference < 0.05 * np.linalg.norm(model(images[1][0])[0])

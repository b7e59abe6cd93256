"""Kernels that read an image at places which are data, against PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, check, numbers
from torch import nn

from lvc.backends.onnx import BACKEND as ONNX
from lvc.compiler.backend import Target
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

onnxruntime = pytest.importorskip("onnxruntime")

EVERY_WAY = [*itertools.product((0, 1, 2), (0, 1, 2), (False, True))]  # interpolation, padding, align_corners


@pytest.mark.parametrize("blocked", [False, True])
def test_every_mode_and_padding(blocked: bool) -> None:
    sketch = Sketch()
    data, places = sketch.input(2, 3, 5, 7), sketch.input(2, 4, 6, 2)
    image, ways = (sketch.conv(data, 20), EVERY_WAY[::4]) if blocked else (data, EVERY_WAY)
    sampled = [sketch.call(aten.grid_sampler_2d.default, image, places, *way) for way in ways]
    check(sketch.model(*sampled), numbers(2, 3, 5, 7), numbers(2, 4, 6, 2, seed=1))


@settings(max_examples=6)
@given(
    st.sampled_from(EVERY_WAY),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.sampled_from([1.0, 3.0, 40.0]),
    st.booleans(),
    st.integers(0, 99),
)
def test_images_of_any_size_at_places_far_outside_and_between_pixels(
    way: tuple[int, int, bool], sizes: list[int], reach: float, is_even: bool, seed: int
) -> None:
    sketch = Sketch()
    sampled = sketch.call(
        aten.grid_sampler_2d.default, sketch.input(2, 3, *sizes[:2]), sketch.input(2, *sizes[2:], 2), *way
    )
    places = numbers(2, *sizes[2:], 2, seed=seed, low=-reach, high=reach)
    places = (places * 4).round() / 4 if is_even else places
    model = sketch.model(sampled, sketch.call(aten.relu.default, sampled))
    check(model, numbers(2, 3, *sizes[:2], seed=seed + 1), places)


def test_places_that_are_no_numbers_are_read_inside() -> None:
    sketch = Sketch()
    image, places = sketch.input(1, 1, 3, 4), sketch.input(1, 1, 5, 2)
    nearest = [sketch.call(aten.grid_sampler_2d.default, image, places, 1, padding, False) for padding in range(3)]
    given_places = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32).repeat(2).reshape(1, 1, 5, 2)
    check(sketch.model(*nearest), numbers(1, 1, 3, 4), given_places)


class SpatialTransformer(nn.Module):
    """Jaderberg et al. 2015: a small network finds the affine map by which a classifier's picture is straightened."""

    def __init__(self) -> None:
        super().__init__()
        self.localisation = nn.Sequential(
            *(nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 6)),
        )
        self.classifier = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 400, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.localisation(x).view(-1, 2, 3) + torch.eye(2, 3)
        places = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
        return self.classifier(nn.functional.grid_sample(x, places, align_corners=False))


def transformer() -> tuple[nn.Module, Model, np.ndarray]:
    torch.manual_seed(0)
    module = SpatialTransformer().eval()
    return module, from_module(module, torch.zeros(1, 1, 22, 22)), numbers(1, 1, 22, 22)


def test_a_spatial_transformer_network() -> None:
    module, model, image = transformer()
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(model(image)[0], wanted, rtol=1e-5, atol=1e-5)
    optimised, _ = Pipeline.parse("O2").run(model)
    check(optimised, image)
    written = ONNX.build(model, Target.parse("onnx"), Workspace()).files["model.onnx"]
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": image})[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_spatial_transformer_network_in_integers_samples_in_single_precision() -> None:
    _, model, _ = transformer()
    images = [(numbers(1, 1, 22, 22, seed=seed), None) for seed in range(8)]
    whole, _ = Pipeline.parse("int8,lower-to-integer").run(model, Workspace(data={"calib": lambda: images}))
    (sampled,) = calls(whole.module.graph, aten.grid_sampler_2d.default)
    assert {spec(node).dtype for node in (sampled, *sampled.all_input_nodes)} == {torch.float32}
    check(whole, images[0][0])

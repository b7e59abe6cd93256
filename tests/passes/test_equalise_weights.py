"""Channels scaled between layers: ranges become even and the network stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calibration_data import normal, workspace_of
from hypothesis import given
from random_models import models

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.observers import Drift, Verifier, relative_difference
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline

PAIR = """
    model pair(x: f32[1,3,6,6])
      @a.weight : f32[4,3,3,3]
      @a.bias : f32[4]
      @b.weight : f32[4,1,3,3]
      @c.weight : f32[5,4]
      %a = conv2d(%x, @a.weight, @a.bias, [1, 1], [1, 1])
      %act = ACTIVATION
      %padded = constant_pad_nd(%act, [0, 1, 0, 1], 0.0)
      %b = conv2d(%padded, @b.weight, None, [1, 1], [1, 1], [1, 1], 4)
      %relu = relu(%b)
      %mean = mean(%relu, [2, 3])
      %c = linear(%mean, @c.weight)
      return out=%c
"""
RELU = parse_model(PAIR.replace("ACTIVATION", "relu(%a)"))
RELU6 = parse_model(PAIR.replace("ACTIVATION", "clamp(%a, 0, 6)"))


def equalised(model: Model, options: str, images: int = 8) -> tuple[Model, Outcome]:
    pipeline = Pipeline.parse(f"equalise-weights{options}")
    result, (step,) = pipeline.run(model, normal(model, images), [Verifier(), Drift()])
    return result, step.outcome


def weight_range(model: Model, name: str, dim: int) -> torch.Tensor:
    return model.module.get_parameter(name).detach().movedim(dim, 0).flatten(1).abs().amax(1)


def test_by_weights_both_sides_of_a_channel_have_one_range() -> None:
    model, outcome = equalised(RELU, "{by=weights}")
    assert outcome.changed == ["a", "b"]
    np.testing.assert_allclose(weight_range(model, "b.weight", 0), weight_range(model, "c.weight", 1), rtol=1e-2)
    np.testing.assert_allclose(weight_range(model, "a.weight", 0), weight_range(model, "b.weight", 0), rtol=1e-2)
    inputs = seeded_inputs(RELU.inputs, 1)
    assert relative_difference(model(*inputs)[0], RELU(*inputs)[0]) < 1e-6


def channel_ranges(model: Model, name: str, images: int = 8) -> torch.Tensor:
    """The greatest magnitude of each channel of a value, on the images that the pass saw."""
    node = next(n for n in model.module.graph.nodes if n.name == name)
    twin = model.copy()
    same = next(n for n in twin.module.graph.nodes if n.name == node.name)
    twin.module.graph.output_node().args = ((same,),)
    twin.module.recompile()
    data = normal(model, images).data_set("calib")
    return torch.stack([twin.module(torch.from_numpy(x))[0][0].flatten(1).abs().amax(1) for x, _ in data]).amax(0)


@pytest.mark.parametrize("model", [RELU, RELU6])
def test_by_activations_all_channels_have_one_range(model: Model) -> None:
    result, outcome = equalised(model, "{strength=1 always=true}")
    assert outcome.changed == ["a", "b"]
    ranges = channel_ranges(result, "act").detach()
    np.testing.assert_allclose(ranges, np.full(4, channel_ranges(model, "act").max().item()), rtol=1e-5)
    for array, _ in normal(model).data_set("calib"):
        assert relative_difference(result(array)[0], model(array)[0]) < 1e-6


def test_half_strength_halves_the_exponent() -> None:
    model, _ = equalised(RELU, "{strength=0.5 always=true}")
    before = channel_ranges(RELU, "relu").detach()
    np.testing.assert_allclose(channel_ranges(model, "relu").detach(), (before * before.max()).sqrt(), rtol=1e-5)


def test_where_a_depthwise_layer_reads_channels_become_equal() -> None:
    model, _ = equalised(RELU, "{strength=0.5 always=true}")
    np.testing.assert_allclose(
        channel_ranges(model, "act").detach(), np.full(4, channel_ranges(RELU, "act").max().item()), rtol=1e-5
    )


LIMITED = parse_model("""
    model limited(x: f32[1,2,4,4])
      @a.weight : f32[2,2,1,1]
      @b.weight : f32[2,1,1,1]
      %a = conv2d(%x, @a.weight)
      %act = clamp(%a, 0, 6)
      %b = conv2d(%act, @b.weight, None, [1, 1], [0, 0], [1, 1], 2)
      return out=%b
""")


@pytest.mark.parametrize(("other", "is_scaled"), [(0.05, True), (5.0, False)])
def test_other_images_decide_whether_a_channel_is_scaled(other: float, is_scaled: bool) -> None:
    """Every other image is kept for judging: one that goes beyond what the rest showed would be cut off."""
    model = LIMITED.copy()
    with torch.no_grad():
        model.module.get_parameter("a.weight").copy_(torch.eye(2)[:, :, None, None])
        model.module.get_parameter("b.weight").fill_(1.0)
    random, images = np.random.default_rng(0), []
    for number in range(8):
        image = random.random((1, 2, 4, 4), np.float32)
        image[:, 0] *= 5
        image[:, 1] *= 0.05 if number % 2 == 0 else other
        images.append(image)
    result, (step,) = Pipeline.parse("equalise-weights").run(model, workspace_of(*images))
    assert step.outcome.changed == (["a"] if is_scaled else [])
    reasons = [skip.reason for skip in step.outcome.skipped if skip.node == "a"]
    assert reasons == (
        [] if is_scaled else ["on the images kept for judging, the layers that read it would lose by it"]
    )
    assert torch.equal(result.module.get_parameter("b.weight"), model.module.get_parameter("b.weight")) != is_scaled


def test_behind_a_function_that_bends_a_multiplication_scales() -> None:
    """The kernel before it takes the multiplication in: nothing is quantised between, and the model is the same."""
    source = parse_model(
        PAIR.replace("ACTIVATION", "silu(%a)").replace("constant_pad_nd(%act, [0, 1, 0, 1], 0.0)", "relu(%act)")
    )
    model, outcome = equalised(source, "{always=true}")
    assert outcome.changed == ["act", "b"]
    np.testing.assert_allclose(model.module.get_parameter("act_factor").detach().amin().item(), 1.0)
    for array, _ in normal(source).data_set("calib"):
        assert relative_difference(model(array)[0], source(array)[0]) < 1e-6
    placed, _ = Pipeline.parse("insert-fake-quant").run(model)
    grids = {n.all_input_nodes[0].name for n in placed.module.graph.nodes if "uncalibrated" in str(n.target)}
    assert grids == {"x", "padded", "relu", "mean", "a_weight", "b_weight", "c_weight"}


def test_a_channel_that_is_never_used_stays_finite() -> None:
    model, _ = Pipeline.parse("equalise-weights{strength=1}").run(
        RELU, workspace_of(np.zeros((1, 3, 6, 6), np.float32))
    )
    assert all(bool(weight.isfinite().all()) for weight in model.module.parameters())


def test_a_limit_cannot_move_without_data() -> None:
    model, outcome = equalised(RELU6, "{by=weights}")
    assert outcome.changed == ["b"]
    assert {skip.node: skip.reason for skip in outcome.skipped}["a"].startswith("values after it are limited to 6")
    assert torch.equal(model.module.get_parameter("a.bias"), RELU6.module.get_parameter("a.bias"))


def test_what_ends_a_chain() -> None:
    model = parse_model("""
        model ends(x: f32[1,4,4,4])
          @w : f32[4,4,1,1]
          @v : f32[4,4,1,1]
          @u : f32[4,4,1,1]
          @t : f32[4,4,1,1]
          %first = conv2d(%x, @w)
          %swish = silu(%first)
          %second = conv2d(%swish, @v)
          %sum = add(%second, %first)
          %third = conv2d(%sum, @u)
          %shared = conv2d(%third, @t)
          %last = conv2d(%shared, @t)
          return out=%last
    """)
    _, outcome = equalised(model, "{by=weights}")
    assert outcome.changed == []
    assert {skip.node: skip.reason for skip in outcome.skipped} == {
        "first": "'first' is read in 2 places, and not all are layers",
        "second": "'sum_1' (add) after it does not scale with its input",
        "third": "the weight of 'shared' is computed, or shared",
        "shared": "the weight of 'shared' is computed, or shared",
        "last": "its result leaves the model",
    }


@given(models())
def test_without_data_any_model_stays_what_it_was(model: Model) -> None:
    result, _ = Pipeline.parse("equalise-weights{by=weights}").run(model, observers=[Verifier()])
    inputs = seeded_inputs(model.inputs, 0)
    for found, wanted in zip(result(*inputs), model(*inputs), strict=True):
        assert relative_difference(found, wanted) < 1e-4


@pytest.mark.parametrize("options", ["{strength=0}", "{strength=1.5}", "{images=0}"])
def test_wrong_options_are_refused(options: str) -> None:
    with pytest.raises(UsageError, match="must be"):
        Pipeline.parse(f"equalise-weights{options}")

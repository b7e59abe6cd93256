"""Rounding with errors passed on, and corrected biases: by hand on small matrices, and on a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calibration_data import normal, workspace_of

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.fitting.moments import Moments
from lvc.passes.fitting.ridge import NormalEquations
from lvc.passes.quantisation.layerwise import without_fake_quantisation
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.quantisation.rounding import Places, ordered, placed
from lvc.passes.quantisation.rounding import rounded as quantised

NETWORK = parse_model("""
    model network(x: f32[1,3,12,12])
      @a.weight : f32[8,3,3,3]
      @a.bias : f32[8]
      @b.weight : f32[8,1,3,3]
      @c.weight : f32[8,4,1,1]
      @d.weight : f32[5,8]
      %a = conv2d(%x, @a.weight, @a.bias, [2, 2], [1, 1])
      %relu = relu(%a)
      %b = conv2d(%relu, @b.weight, None, [1, 1], [2, 2], [2, 2], 8)
      %swish = relu(%b)
      %c = conv2d(%swish, @c.weight, None, [1, 1], [0, 0], [1, 1], 2)
      %last = relu(%c)
      %mean = mean(%last, [2, 3])
      %d = linear(%mean, @d.weight)
      return out=%d
""")
PER_CHANNEL = torch.ops.aten.fake_quantize_per_channel_affine.default
QUANTISE = "insert-fake-quant{weight_bits=3},calibrate"


def parameters(scale: float, low: int = -8, high: int = 7) -> QuantisationParameters:
    return QuantisationParameters(torch.tensor([scale]), torch.tensor([0], dtype=torch.int32), low, high, 0)


def rounded(
    weight: torch.Tensor, inputs: torch.Tensor, parameters: QuantisationParameters, damping: float
) -> torch.Tensor:
    """Weights ``[groups,out,in]`` quantised, for inputs of a covariance."""
    order = inputs.diagonal(dim1=1, dim2=2).sum(0).argsort()
    places = Places.of(weight, parameters, order)
    equations = NormalEquations(inputs[:, order][:, :, order], torch.zeros_like(places.start))
    return places.weights(quantised(equations, places, equations.missing, damping)[0], order)


def run(text: str, model: Model = NETWORK) -> tuple[Model, Outcome]:
    result, steps = Pipeline.parse(text).run(model, normal(model, 24), [Verifier()])
    return result, steps[-1].outcome


def decibels(outcome: Outcome) -> tuple[float, float]:
    """SQNR before and after, as the last note says."""
    now, before = (float(part.split()[-1]) for part in outcome.notes[-1].split(" dB")[:2])
    return before, now


def test_without_correlation_it_is_rounding_to_the_nearest() -> None:
    weight = torch.randn(2, 3, 5)
    grid6 = QuantisationParameters(torch.full((6,), 0.25), torch.zeros(6, dtype=torch.int32), -4, 3, 0)
    inputs = torch.eye(5).expand(2, 5, 5)
    nearest = (weight / 0.25).round().clamp(-4, 3) * 0.25
    torch.testing.assert_close(rounded(weight, inputs, grid6, 1e-6), nearest)


def test_an_error_is_passed_on_to_an_input_that_is_the_same() -> None:
    weight = torch.tensor([[[0.4, 0.4]]])
    inputs = torch.ones(1, 2, 2)
    assert sorted(rounded(weight, inputs, parameters(1.0), 1e-6).flatten().tolist()) == [0.0, 1.0]


def test_the_largest_input_is_rounded_first() -> None:
    weight = torch.tensor([[[0.4, 0.4]]])
    inputs = torch.tensor([[[1.0, 2.0], [2.0, 4.0]]])
    assert rounded(weight, inputs, parameters(1.0), 1e-6).flatten().tolist() == [1.0, 0.0]


def test_products_change_less_than_by_rounding_to_the_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(200, 200, generator=generator)
    x = torch.randn(1000, 200, generator=generator) @ mixed
    weight = torch.randn(1, 16, 200, generator=generator)
    covariance = (x.T @ x / 1000)[None]
    nearest = (weight / 0.5).round().clamp(-8, 7) * 0.5
    clever = rounded(weight, covariance, parameters(0.5), 0.01)
    assert torch.equal((clever / 0.5).round() * 0.5, clever)
    error, least = (float((x @ (w - weight)[0].T).square().mean()) for w in (nearest, clever))
    assert least < 0.5 * error


def test_the_fit_finds_what_made_the_outputs() -> None:
    x = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([[[1.0, -2.0, 0.5, 3.0]], [[0.0, 1.0, 1.0, -1.0]]])
    y = torch.einsum("gri,goi->gro", x, true) + torch.tensor([[[4.0]], [[-1.0]]])
    first, second = (Moments.empty(4, 1, 2) for _ in range(2))
    first.add(x[:, :100], y[:, :100])
    second.add(x[:, 100:], y[:, 100:])
    start, moments, order = torch.zeros(2, 1, 4), first + second, torch.tensor([2, 0, 3, 1])
    equations = ordered(moments.normal_equations(start), order)
    change = equations.solution(1e-6)
    torch.testing.assert_close(change, true.transpose(1, 2)[:, order], atol=1e-4, rtol=0)
    nothing = torch.zeros_like(change)
    assert equations.error(change) < equations.error(change + 0.01) < equations.error(nothing) == 0
    assert torch.equal(equations.solution(math.inf), nothing)


def test_a_wanted_change_is_made_before_rounding() -> None:
    """Of inputs that do not vary together, each weight goes to the quantised value nearest to what is wanted."""
    weight, wanted = torch.randn(1, 3, 5), torch.randn(1, 5, 3)
    uneven = QuantisationParameters(torch.full((3,), 0.5), torch.tensor([0, 1, -1], dtype=torch.int32), -20, 20, 0)
    order = torch.arange(5)
    places = Places.of(weight, uneven, order)
    equations = NormalEquations((torch.eye(5) * torch.rand(5))[None], wanted)
    integers, errors = quantised(equations, places, wanted, 0.1)
    target = weight + wanted.transpose(1, 2)
    torch.testing.assert_close(places.weights(integers, order), (target / 0.5).round() * 0.5)
    assert errors.shape == (1, 3)
    assert bool((errors > 0).all())


def test_what_is_left_over_is_the_damped_error() -> None:
    x = torch.randn(40, 6) @ torch.randn(6, 6)
    weight, wanted, order = torch.randn(1, 4, 6), 0.1 * torch.randn(1, 6, 4), torch.arange(6)
    places = Places.of(
        weight, QuantisationParameters(torch.full((4,), 0.4), torch.zeros(4, dtype=torch.int32), -7, 7, 0), order
    )
    equations = NormalEquations((x.T @ x / 40)[None], wanted)
    integers, errors = quantised(equations, places, wanted, 0.1)
    off = places.change(integers) - wanted
    damped = equations.inputs + 0.1 * equations.inputs[0].diagonal().mean() * torch.eye(6)
    torch.testing.assert_close(errors, (off * (damped @ off)).sum(1), rtol=1e-4, atol=1e-5)


def test_each_output_takes_the_size_of_steps_that_serves_it_best() -> None:
    weight, order = torch.tensor([[[0.9, -1.8], [1.0, 3.0]]]), torch.arange(2)
    places = Places.of(
        weight, QuantisationParameters(torch.ones(2), torch.zeros(2, dtype=torch.int32), -7, 7, 0), order
    )
    equations = NormalEquations(torch.eye(2)[None], torch.zeros(1, 2, 2))
    found, integers = placed(equations, places, equations.missing, 0.01, (0.9, 1.0))
    torch.testing.assert_close(found.scale.flatten(), torch.tensor([0.9, 1.0]))
    torch.testing.assert_close(found.weights(integers, order), weight)


@pytest.mark.parametrize("inputs", [4, 300])
def test_moments_are_those_of_the_rows(inputs: int) -> None:
    """Of one panel of inputs, and of several."""
    x = torch.randn(3, 50, inputs, generator=torch.Generator().manual_seed(0)) + 100
    y = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(1))
    moments = Moments.empty(inputs, 2, 3)
    moments.add(x, y)
    equations = moments.normal_equations(torch.zeros(3, 2, inputs).double())
    covariance = torch.cat([x[1], y[1]], 1).double().T.cov(correction=0)
    torch.testing.assert_close(equations.inputs[1], covariance[:inputs, :inputs], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(equations.missing[1], covariance[:inputs, inputs:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moments.variances[1], covariance.diagonal()[:inputs], atol=1e-4, rtol=1e-4)
    one = moments.of_group(1).normal_equations(torch.zeros(2, inputs).double())
    torch.testing.assert_close(one.inputs, equations.inputs[1])


def test_few_images_do_not_bend_many_weights() -> None:
    """Sixteen images can be fitted exactly by a layer of 400 inputs; on other images that would be far off."""
    model = parse_model("""
        model wide(x: f32[1,400])
          @w : f32[20,400]
          %y = linear(%x, @w)
          return out=%y
    """)
    fast, _ = Pipeline.parse(f"{QUANTISE}").run(model, normal(model, 16))
    fine, _ = Pipeline.parse(f"{QUANTISE},round-weights").run(model, normal(model, 16))
    x = torch.randn(1, 400, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        errors = [float((m.module(x)[0] - model.module(x)[0]).square().sum()) for m in (fast, fine)]
    assert errors[1] < 1.3 * errors[0]


def test_a_network_comes_closer_and_its_weights_are_quantised() -> None:
    model, outcome = run(f"{QUANTISE},round-weights{{always=true}}")
    assert outcome.changed == ["a", "b", "c", "d"]
    before, after = decibels(outcome)
    assert after > before + 3
    for node in calls(model.module.graph, PER_CHANNEL):
        weight = model.module.get_parameter(str(node.all_input_nodes[0].target)).detach()
        torch.testing.assert_close(
            QuantisationParameters.of(model.module, node).round(weight), weight, rtol=1e-5, atol=1e-6
        )


def test_biases_restore_the_mean_of_each_channel() -> None:
    model, outcome = run(f"{QUANTISE},correct-bias")
    before, after = decibels(outcome)
    assert after > before
    floating, _ = Pipeline.parse("").run(NETWORK)
    images = [torch.from_numpy(x) for x, _ in normal(NETWORK, 24).data_set("calib")]
    wanted, found = (torch.cat([m.module(x)[0] for x in images]).mean(0).detach() for m in (floating, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last", ["correct-bias", "round-weights"])
def test_a_layer_that_reads_one_vector_is_mended(last: str) -> None:
    """torch.flatten(x) leaves no batch dimension: the layer behind gives one row for each image."""
    flat = parse_model("""
        model flat(x: f32[1,2,4,4])
          @a.weight : f32[4,2,3,3]
          @b.weight : f32[8,16]
          @b.bias : f32[8]
          %a = conv2d(%x, @a.weight)
          %vector = reshape(%a, [16])
          %b = linear(%vector, @b.weight, @b.bias)
          return out=%b
    """)
    model, outcome = run(f"{QUANTISE},{last}{{always=true}}", flat)
    assert outcome.changed == ["a", "b"]
    images = [torch.from_numpy(x) for x, _ in normal(flat, 24).data_set("calib")]
    wanted, found = (torch.stack([m.module(x)[0] for x in images]).mean(0).detach() for m in (flat, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_floating_point_twin_is_not_quantised() -> None:
    model, _ = run(QUANTISE)
    assert without_fake_quantisation(model).to_text() == NETWORK.to_text()


@pytest.mark.parametrize(("options", "moved"), [("weight_bits=4", True), ("weight_bits=8", False)])
def test_coarse_steps_are_sized_anew(options: str, moved: bool) -> None:
    (before, _), (after, _) = (
        run(f"insert-fake-quant{{{options}}},calibrate{end}") for end in ("", ",round-weights{always=true}")
    )
    scales = [
        [QuantisationParameters.of(m.module, n).scale for n in calls(m.module.graph, PER_CHANNEL)]
        for m in (before, after)
    ]
    assert any(not torch.equal(*pair) for pair in zip(*scales, strict=True)) == moved


def test_steps_stay_powers_of_two() -> None:
    model, _ = run("insert-fake-quant{weight_bits=4 scale=power-of-two},calibrate,round-weights")
    for node in calls(model.module.graph, PER_CHANNEL):
        assert bool((QuantisationParameters.of(model.module, node).scale.log2() % 1 == 0).all())


@pytest.mark.parametrize("name", ["round-weights", "correct-bias"])
def test_fake_quantisation_must_stand(name: str) -> None:
    with pytest.raises(CompileError, match="is not calibrated") as error:
        run(f"insert-fake-quant,{name}")
    assert "run calibrate" in error.value.help
    _, outcome = run(name)
    assert outcome.changed == []
    assert "put insert-fake-quant and calibrate before" in outcome.notes[0]


@pytest.mark.parametrize("text", ["round-weights{images=0}", "correct-bias{images=0}"])
def test_wrong_options_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must be"):
        Pipeline.parse(text)


def test_layers_that_share_a_weight_are_left_alone() -> None:
    model = parse_model("""
        model shared(x: f32[1,4,4,4])
          @w : f32[4,4,1,1]
          %a = conv2d(%x, @w)
          %b = conv2d(%a, @w)
          return out=%b
    """)
    _, outcome = run(f"{QUANTISE},round-weights", model)
    assert outcome.changed == []
    assert {skip.reason for skip in outcome.skipped} == {"its weight is computed in the graph, or shared"}


def test_one_image_is_enough_to_run() -> None:
    image = np.ones((1, 3, 12, 12), np.float32)
    model, _ = Pipeline.parse(f"{QUANTISE},round-weights").run(NETWORK, workspace_of(image))
    assert bool(torch.from_numpy(model(image)[0]).isfinite().all())


def test_a_deep_network_is_no_matter() -> None:
    """A network of 1,500 operators goes through without recursion."""
    chain = "\n".join(f"%v{i + 1} = relu(%v{i})" for i in range(1500))
    model = parse_model(f"model deep(v0: f32[1,4])\n@w : f32[4,4]\n{chain}\n%y = linear(%v1500, @w)\nreturn out=%y")
    _, outcome = run(f"{QUANTISE},correct-bias{{always=true}}", model)
    assert outcome.changed == ["y"]

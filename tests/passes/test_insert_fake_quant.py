"""Where fake quantisation goes, what it refuses, and that a model with places to quantise is what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from calibration_data import normal
from hypothesis import given
from random_models import models

from lvc.compiler import container
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph import calls, is_call
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.load import load
from lvc.compiler.pipeline.catalogue import BACKENDS
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model

TWO_LAYERS = parse_model("""
    model two(image: f32[1,3,8,8])
      @first.weight : f32[4,3,3,3]
      @second.weight : f32[4,4,3,3]
      %first = conv2d(%image, @first.weight)
      %relu = relu(%first)
      %second = conv2d(%relu, @second.weight)
      return out=%second
""")


def inserted(model: Model, options: str = "") -> tuple[Model, Outcome]:
    result, (step,) = Pipeline.parse(f"insert-fake-quant{options}").run(model, observers=[Verifier(), Drift()])
    return result, step.outcome


def places(model: Model) -> dict[str, tuple[object, ...]]:
    return {node.name: node.args[1:] for node in calls(model.module.graph, UNCALIBRATED)}


def test_options_reach_the_places() -> None:
    options = "{weight_bits=4 activation_bits=6 weight_symmetric=false activation_symmetric=true scale=power-of-two}"
    found = places(inserted(TWO_LAYERS, options)[0])
    assert found["relu_quantised"] == (6, None, True, "power-of-two", "")
    assert found["first_weight_quantised"] == (4, 0, False, "power-of-two", "")
    assert places(inserted(TWO_LAYERS, "{per_channel=false}")[0])["first_weight_quantised"][1] is None


def test_the_first_and_the_last_layers_have_bits_of_their_own() -> None:
    model = parse_model("""
        model three(image: f32[1,3,8,8])
          @first.weight : f32[4,3,3,3]
          @second.weight : f32[4,4,3,3]
          @third.weight : f32[5,4]
          %first = conv2d(%image, @first.weight)
          %relu = relu(%first)
          %second = conv2d(%relu, @second.weight)
          %mean = mean(%second, [2, 3])
          %flat = reshape(%mean, [1, 4])
          %third = linear(%flat, @third.weight)
          return out=%third
    """)
    found = places(inserted(model, "{weight_bits=3 activation_bits=4 outer_bits=7}")[0])
    assert {name.removesuffix("_quantised"): arguments[0] for name, arguments in found.items()} == {
        "image": 7,
        "first_weight": 7,
        "relu": 4,
        "second_weight": 3,
        "second": 4,
        "mean": 7,
        "third_weight": 7,
    }
    with pytest.raises(UsageError, match="outer_bits must be 2 to 8, or 0, not 1"):
        inserted(model, "{outer_bits=1}")


@pytest.mark.parametrize("options", ["{only=second}", "{skip=first}", "{only=se*}", "{skip=fir?t}"])
def test_one_layer_of_two(options: str) -> None:
    model, outcome = inserted(TWO_LAYERS, options)
    assert set(places(model)) == {"second_weight_quantised", "relu_quantised"}
    assert [skip.node for skip in outcome.skipped] == ["first"]
    assert outcome.notes == ["37.2 % of 6.19 kMACs run in integers: 1 of 2 layers"]


def test_layers_join_in_steps_with_parameters_of_their_own() -> None:
    once, _ = inserted(TWO_LAYERS)
    steps, _ = Pipeline.parse("insert-fake-quant{only=second},insert-fake-quant{weight_bits=4}").run(TWO_LAYERS)
    assert places(steps) | {"first_weight_quantised": ()} == places(once) | {"first_weight_quantised": ()}
    assert places(steps)["first_weight_quantised"][0] == 4


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("{only=frist}", "matches nothing"),
        ("{skip=nothing*}", "matches nothing"),
        ("{weight_bits=9}", "weight_bits must be 2 to 8"),
        ("{activation_bits=1}", "activation_bits must be 2 to 8"),
        ("{scale=log}", "must be one of linear, power-of-two"),
    ],
)
def test_wrong_options_are_refused(option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inserted(TWO_LAYERS, option)


def test_a_misspelt_pattern_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as error:
        inserted(TWO_LAYERS, "{only=frist}")
    assert "did you mean 'first'" in error.value.help


def test_a_quantised_model_is_refused() -> None:
    model, _ = Pipeline.parse("insert-fake-quant,calibrate").run(TWO_LAYERS, normal(TWO_LAYERS))
    with pytest.raises(CompileError, match="quantised already"):
        inserted(model)


def test_refusals_say_why() -> None:
    _, outcome = inserted(
        parse_model("""
        model refused(x: f32[1,4,4,4], w: f32[4,4,1,1], h: f64[1,4,4,4])
          @v : f32[4,4,2,2]
          @u : f64[4,4,1,1]
          %up = conv_transpose2d(%x, @v, None, [2, 2])
          %free = conv2d(%x, %w)
          %double = conv2d(%h, @u)
          return up=%up, free=%free, double=%double
    """)
    )
    assert {skip.node: skip.reason for skip in outcome.skipped} == {
        "up": "there is no integer kernel for conv_transpose2d: none is written",
        "free": "its weight is computed in the graph",
        "double": "integer kernels stand for float32, and it is torch.float64",
    }
    assert outcome.changed == []


def test_unfolded_batch_norms_are_mentioned() -> None:
    model = parse_model("""
        model norm(x: f32[1,2,4,4])
          @w : f32[2,2,1,1]
          @mean : f32[2]
          @var : f32[2]
          %conv = conv2d(%x, @w)
          %bn = batch_norm(%conv, None, None, @mean, @var, False, 0.1, 1e-05, True)
          return out=%bn
    """)
    assert any("1 batch normalisation left in floating point" in note for note in inserted(model)[1].notes)


ATTENTION = parse_model("""
    model attention(x: f32[1,4,8])
      @w : f32[16,8]
      @u : f32[8,8]
      %both = linear(%x, @w)
      %q = slice(%both, 2, 0, 8)
      %half = mul(%q, 0.05)
      %k = slice(%both, 2, 8, 16)
      %turned = permute(%k, [0, 2, 1])
      %scores = matmul(%half, %turned)
      %weights = softmax(%scores, -1)
      %mixed = matmul(%weights, %q)
      %flat = reshape(%mixed, [4, 8])
      %out = linear(%flat, @u)
      return out=%out
""")


def test_factors_of_attention_are_quantised_where_they_are_multiplied() -> None:
    factors = {f"{name}_quantised" for name in ("half", "turned", "weights", "q")}
    layers = {f"{name}_quantised" for name in ("x", "w", "u")}
    found, outcome = inserted(ATTENTION)
    assert set(places(found)) == factors | layers | {"mixed_quantised"}
    assert outcome.skipped == []
    whole, steps = Pipeline.parse("insert-fake-quant,calibrate,lower-to-integer").run(ATTENTION, normal(ATTENTION))
    assert len(list(calls(whole.module.graph, torch.ops.lvc.matmul.default))) == 2
    assert "(100.0 %)" in steps[-1].outcome.notes[0]
    for array, _ in normal(ATTENTION).data_set("calib"):
        exact = ATTENTION(array)[0]
        assert np.linalg.norm(whole(array)[0] - exact) < 0.05 * np.linalg.norm(exact)
    found, outcome = inserted(ATTENTION, "{attention=false}")
    assert set(places(found)) == layers | {"flat_quantised"}
    assert {skip.reason for skip in outcome.skipped} == {"attention=false leaves it out"}


@pytest.mark.parametrize(
    ("right", "reason"),
    [("@w", "one is stored"), ("%k", "stacks of as many matrices"), ("%v", "stacks of as many matrices")],
)
def test_products_of_matrices_without_an_integer_kernel_stay(right: str, reason: str) -> None:
    model = parse_model(f"""
        model product(x: f32[2,4,8], k: f32[1,8,4], v: f32[8])
          @w : f32[2,8,4]
          %out = matmul(%x, {right})
          return out=%out
    """)
    found, outcome = inserted(model)
    assert places(found) == {}
    (skip,) = outcome.skipped
    assert reason in skip.reason
    assert any(note.startswith("0.0 % of") for note in outcome.notes)


def test_a_gate_is_quantised_behind_its_function_and_so_is_the_product() -> None:
    model = parse_model("""
        model squeezed(x: f32[1,4,6,6])
          @v : f32[4,4,3,3]
          @u : f32[4,4,1,1]
          @w : f32[2,4,1,1]
          %a = conv2d(%x, @v)
          %wide = silu(%a)
          %mean = mean(%wide, [2, 3], True)
          %b = conv2d(%mean, @u)
          %gate = sigmoid(%b)
          %gated = mul(%gate, %wide)
          %out = conv2d(%gated, @w)
          return out=%out
    """)
    grids = {f"{name}_quantised" for name in ("x", "v", "u", "w", "wide", "mean", "gate", "gated")}
    assert set(places(inserted(model)[0])) == grids
    whole, steps = Pipeline.parse("insert-fake-quant,calibrate,lower-to-integer").run(model, normal(model))
    assert steps[-1].outcome.skipped == []
    (product,) = calls(whole.module.graph, torch.ops.lvc.mul.default)
    assert [is_call(user, torch.ops.lvc.requantise.default) for user in product.users] == [True]


@pytest.mark.parametrize("product", ["mul(%a, 0.5)", "mul(%a, @small)", "mul(%a, %double)"])
def test_products_that_have_no_integer_kernel_are_not_quantised(product: str) -> None:
    model = parse_model(f"""
        model product(x: f32[1,4,6,6], double: f64[])
          @v : f32[4,4,1,1]
          @w : f32[2,4,1,1]
          @small : f32[6,6]
          %first = conv2d(%x, @v)
          %a = permute(%first, [0, 1, 3, 2])
          %b = {product}
          %out = conv2d(%b, @w)
          return out=%out
    """)
    assert set(places(inserted(model)[0])) == {"x_quantised", "v_quantised", "w_quantised", "b_quantised"}


@given(models())
def test_any_model_stays_what_it_was_and_keeps_its_form(model: Model) -> None:
    result, _ = inserted(model)
    assert result.inputs == model.inputs
    again, outcome = inserted(result)
    assert outcome.changed == []
    assert parse_model(again.to_text()).to_text() == result.to_text()
    for node in calls(result.module.graph, UNCALIBRATED):
        assert not is_call(node.args[0], UNCALIBRATED)
        assert node.users


def test_gradients_pass_through_places() -> None:
    model, _ = inserted(TWO_LAYERS)
    model.module(torch.randn(1, 3, 8, 8))[0].sum().backward()
    gradient = model.module.get_parameter("first.weight").grad
    assert gradient is not None
    assert bool(gradient.any())


@pytest.mark.parametrize("target", ["onnx", "native"])
def test_nothing_is_built_before_calibration(target: str) -> None:
    model, _ = inserted(TWO_LAYERS)
    parsed = Target.parse(target)
    with pytest.raises(CompileError) as error:
        BACKENDS.get(parsed.backend).build(model, parsed, Workspace(threads=1))
    assert "its quantisation parameters are not known yet" in error.value.why


def test_stages_can_be_kept(tmp_path: Path) -> None:
    model, _ = inserted(TWO_LAYERS)
    write_model(model, tmp_path / "stage.lvc")
    assert container.read(tmp_path / "stage.lvc").backend == "reference"
    assert load(str(tmp_path / "stage.lvc")).to_text() == model.to_text()

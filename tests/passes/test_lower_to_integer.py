"""Integer graphs beside the simulation that they were made from, and what is left in floating point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.ir.graph import calls, op_name
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.writing import write_model


class Net(nn.Module):
    """Every kind of layer that has an integer form."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 20, 3, 2, 1), nn.Conv2d(20, 20, 3, 1, 1, groups=20)
        self.point, self.grouped = nn.Conv2d(20, 24, 1), nn.Conv2d(24, 24, 3, 1, 1, groups=4)
        self.last, self.head = nn.Conv2d(44, 20, 3, 1, 1), nn.Linear(20, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(image))
        y = nn.functional.relu6(self.point(torch.relu(self.depthwise(x))))
        y = nn.functional.max_pool2d(torch.sigmoid(self.grouped(y)), 3, 1, 1)
        y = self.last(torch.cat([y, x], 1)) + x
        result: torch.Tensor = self.head(torch.relu(nn.functional.avg_pool2d(y, 2)).mean((2, 3)))
        return result


def lowered(model: Model) -> tuple[Model, Outcome]:
    result, (step,) = Pipeline.parse("lower-to-integer").run(model, observers=[Verifier()])
    return result, step.outcome


def quantised_by_onnxruntime(folder: Path, symmetric: bool) -> Model:
    """A QDQ model, as ONNX Runtime's static quantiser makes it of `Net`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    torch.manual_seed(0)
    model, _ = Pipeline.parse("O1").run(from_module(Net(), torch.randn(2, 3, 17, 19)))
    write_model(model, folder / "float.onnx")

    class Reader(CalibrationDataReader):
        left = 4

        def get_next(self) -> dict[str, np.ndarray] | None:
            self.left -= 1
            return {model.inputs[0].name: images(self.left)} if self.left >= 0 else None

    quantize_static(
        folder / "float.onnx",
        folder / "whole.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    return from_onnx(folder / "whole.onnx")


def images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 3, 17, 19)).astype(np.float32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_a_model_from_onnxruntime_is_all_integer_and_agrees(tmp_path: Path, symmetric: bool) -> None:
    simulated = quantised_by_onnxruntime(tmp_path, symmetric)
    whole, outcome = lowered(simulated)
    assert not outcome.skipped
    assert "(100.0 %)" in outcome.notes[0]
    names = [str(node.target).split(".")[0] for node in calls(whole.module.graph)]
    assert set(names) <= {"lvc", "aten"}
    step = next(calls(whole.module.graph, torch.ops.lvc.dequantise.default)).args[1]
    steps = np.concatenate([(whole(images(s))[0] - simulated(images(s))[0]).ravel() / step for s in range(20)])
    assert (np.abs(steps) < 1.01).mean() > 0.99
    # averages of integers are often halves, which the simulation rounds either way
    assert (np.abs(steps) < 0.01).mean() > 0.5


LAYER = """
    model layer(x: f32[1,2,4,4])
      @w : f32[3,2,1,1] = {weight}
      @b : f32[3] = {bias}
      %q = fake_quantize_per_tensor_affine(%x, 0.5, 3, {low}, {high})
      %wq = fake_quantize_per_tensor_affine(@w, {scale}, {zero}, {wlow}, {whigh})
      %y = conv2d(%q, %wq, @b)
      return y=%y
"""
USUAL = {"weight": 0.5, "bias": 1.0, "low": 0, "high": 255, "scale": 0.25, "zero": 0, "wlow": -128, "whigh": 127}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bias": 1e30}, "its bias of channel 0 has 8e+30 steps of the sums, and 32 bits hold 2147483647"),
        ({"bias": 268435400.0}, "its sums could reach 2147484144, and 32 bits hold 2147483647"),
        ({"zero": 100, "wlow": 0, "whigh": 255, "weight": 50.0}, "reaches from 155 to 155 steps about zero"),
        ({"high": 300}, "do not fit 8 bits"),
    ],
)
def test_a_layer_that_would_be_wrong_stays(change: dict[str, float], reason: str) -> None:
    model = parse_model(LAYER.format(**(USUAL | change)))
    result, outcome = lowered(model)
    assert any(reason in skip.reason for skip in outcome.skipped), outcome.skipped
    assert outcome.notes == ["0 MACs of 96 MACs in integers (0.0 %)"]
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(result(x)[0], model(x)[0])


def test_weights_about_a_zero_point_become_int8() -> None:
    model = parse_model(LAYER.format(**(USUAL | {"zero": 128, "wlow": 0, "whigh": 255})))
    result, outcome = lowered(model)
    assert outcome.notes == ["96 MACs of 96 MACs in integers (100.0 %)"]
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(result(x)[0], model(x)[0])  # all numbers are multiples of 1/8


FLOATS = """
    model floats(x: f32[1,4,4,4], y: f32[1,4,4,4])
      @w : f32[4,4,1,1]
      %q = fake_quantize_per_tensor_affine(%x, 0.5, 3, 0, 255)
      {call}
      %out = fake_quantize_per_tensor_affine(%f, 0.5, 3, 0, 255)
      return out=%out
"""


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("%f = conv2d(%q, @w)", "its weight is not quantised"),
        ("%f = add(%q, %y)", "'f' (add) reads 'y' (f32[1,4,4,4]), which is not quantised"),
        ("%f = softmax(%q, 1)", "there is no integer form of softmax"),
        ("%f = constant_pad_nd(%q, [1, 1], 0.3)", "it pads with 0.3, which none of its integers stands for"),
        ("%f = avg_pool2d(%q, [3, 3], [1, 1], [1, 1], False, False)", "its windows at the border have fewer places"),
        ("%f = adaptive_avg_pool2d(%q, [3, 3])", "its windows differ in size"),
    ],
)
def test_what_stays_has_a_reason(call: str, reason: str) -> None:
    model = parse_model(FLOATS.format(call=call))
    result, outcome = lowered(model)
    assert any(reason in skip.reason for skip in outcome.skipped), outcome.skipped
    inputs = [np.random.default_rng(seed).standard_normal((1, 4, 4, 4)).astype(np.float32) for seed in (0, 1)]
    assert np.array_equal(result(*inputs)[0], model(*inputs)[0])


SMOOTH = ["gelu(%a)", 'gelu(%a, approximate="tanh")', "tanh(%a)", "elu(%a, 1.5)", "mish(%a)"]


@pytest.mark.parametrize("function", SMOOTH)
def test_every_smooth_function_belongs_to_the_layer_before_it(function: str) -> None:
    model = parse_model(f"""
        model smooth(x: f32[1,8])
          @v : f32[6,8]
          @w : f32[4,6]
          %a = linear(%x, @v)
          %b = {function}
          %out = linear(%b, @w)
          return out=%out
    """)
    result, steps = Pipeline.parse("insert-fake-quant,calibrate,lower-to-integer").run(
        model, normal(model), [Verifier()]
    )
    assert steps[-1].outcome.skipped == []
    name = function.partition("(")[0]
    assert [op_name(node) for node in calls(result.module.graph)] == [
        *("lvc.quantise", "lvc.linear", "lvc.rescale", f"lvc.{name}"),
        *("lvc.quantise", "lvc.linear", "lvc.rescale"),
    ]
    for array, _ in normal(model).data_set("calib"):
        np.testing.assert_allclose(result(array)[0], model(array)[0], atol=0.2)


def test_functions_of_sums_are_computed_before_the_rounding() -> None:
    """By their exact meaning, with no rounding between; what comes of the float model keeps PyTorch's."""
    model = parse_model("""
        model curved(x: f32[1,3,8,8])
          @v : f32[4,3,3,3]
          @w : f32[4,4,1,1]
          @factor : f32[1,4,1,1] = [1.0, 2.0, 3.0, 4.0]
          %a = conv2d(%x, @v)
          %swish = silu(%a)
          %scaled = mul(%swish, @factor)
          %b = conv2d(%scaled, @w)
          %gate = sigmoid(%b)
          %other = sigmoid(%x)
          return gate=%gate, other=%other
    """)
    result, steps = Pipeline.parse("insert-fake-quant,calibrate,lower-to-integer").run(
        model, normal(model), [Verifier()]
    )
    assert steps[-1].outcome.skipped == []
    assert [op_name(node) for node in calls(result.module.graph)] == [
        *("lvc.quantise", "lvc.conv2d", "lvc.rescale", "lvc.silu", "mul"),
        *("lvc.quantise", "lvc.conv2d", "lvc.rescale", "lvc.sigmoid", "sigmoid"),
    ]
    for array, _ in normal(model).data_set("calib"):
        np.testing.assert_allclose(result(array)[0], model(array)[0], atol=0.2)
        np.testing.assert_allclose(result(array)[1], model(array)[1], rtol=1e-6)


def test_integers_come_back_from_a_pt2_file(tmp_path: Path) -> None:
    """torch.export runs the operators without data: nothing of their meaning may hang on it."""
    from lvc.compiler.load import load

    model = from_module(nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 8, 8))
    text = "insert-fake-quant,calibrate,lower-to-integer"
    integer, _ = Pipeline.parse(text).run(model, normal(model))
    write_model(integer, tmp_path / "net.pt2")
    again = load(str(tmp_path / "net.pt2"))
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(again(x)[0], integer(x)[0])

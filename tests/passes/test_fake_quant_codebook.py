"""Weights of every format behind `insert-fake-quant`: the codebooks, gradients, and what each backend makes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.catalogue import BACKENDS
from lvc.compiler.pipeline.observers import Verifier, relative_difference
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS

KINDS = [
    "weight_format=codebook",
    "weight_format=log",
    "group=16",
    "weight_format=codebook group=16",
    "scale=power-of-two",
]


class Net(nn.Module):
    """Convolutions with three, with one and with many input channels, a residual, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.square = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 11)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.first(image))))
        return self.fc((x + torch.relu(self.square(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Model:
    torch.manual_seed(0)
    return from_module(Net(), torch.zeros(1, 3, 16, 16), name="net")


def through(model: Model, text: str) -> tuple[Model, list[Outcome]]:
    result, steps = Pipeline.parse(text).run(model, workspace=normal(model), observers=[Verifier()])
    return result, [step.outcome for step in steps]


def calibrated(model: Model, options: str) -> Model:
    return through(model, f"insert-fake-quant{{weight_bits=4 {options}}},calibrate")[0]


def codebooks(model: Model) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The values and scales by the names of the weights."""
    found = {}
    for node in calls(model.module.graph, FAKE_QUANTIZE_CODEBOOK):
        values, scale = (tensor(model.module, arguments(node)[name]) for name in ("values", "scale"))
        assert values is not None
        assert scale is not None
        found[str(node.all_input_nodes[0].target)] = (values, scale)
    return found


@pytest.mark.parametrize("format", ["linear", "power-of-two", "log", "codebook"])
@pytest.mark.parametrize("group", [0, 16])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codebooks_are_those_of_quantise_weights(net: Model, format: str, group: int, bits: int) -> None:
    quantised, _ = through(
        net, f"insert-fake-quant{{weight_bits={bits} weight_format={format} group={group}}},calibrate"
    )
    weight = tensor(net.module, next(iter(calls(net.module.graph, aten.linear.default))).args[1])
    assert weight is not None
    found = codebooks(quantised)
    if format in ("linear", "power-of-two") and not group:
        assert not found
        return
    values, scale = found["fc.weight"]
    wanted = WEIGHT_FORMATS.parse(format).fit(weight.detach().reshape(11 * (2 if group else 1), -1), bits)
    assert scale.shape == (11, 2 if group else 1)
    assert values.equal(values.round())
    largest = wanted.values.abs().max() * wanted.scale.max()
    every = values * scale.reshape(-1, 1)
    torch.testing.assert_close(every, wanted.values * wanted.scale[:, None], atol=float(largest) / 127, rtol=0)
    if format != "codebook":
        torch.testing.assert_close(every, wanted.values * wanted.scale[:, None], atol=0, rtol=1e-6)


def test_a_whole_weight_may_share_one_codebook_and_scale(net: Model) -> None:
    values, scale = codebooks(calibrated(net, "weight_format=codebook per_channel=false"))["square.weight"]
    assert scale.shape == (32, 1)
    assert len(scale.unique()) == 1
    assert len(values) == 16


def test_values_too_close_for_8_bits_stay_as_they_are(net: Model) -> None:
    model, outcomes = through(net, "insert-fake-quant{weight_format=log},calibrate,lower-to-integer")
    reasons = {skip.node: skip.reason for skip in outcomes[-1].skipped}
    assert reasons["linear"] == "the 256 values of its weight's codebook are not integers that int8 holds"
    assert len(list(calls(model.module.graph, DECODE))) == 4


@pytest.mark.parametrize("options", KINDS[:4])
def test_gradients_pass_straight_through(net: Model, options: str) -> None:
    model = calibrated(net, options)
    model.module(*map(torch.from_numpy, seeded_inputs(model.inputs, 0)))[0].square().sum().backward()
    gradients = {name: value.grad for name, value in model.module.named_parameters()}
    assert {name for name, value in gradients.items() if value is not None and bool(value.any())} >= {
        "first.weight",
        "depthwise.weight",
        "square.weight",
        "fc.weight",
    }


def test_the_gradient_by_hand() -> None:
    weight = torch.tensor([[-3.0, -0.4, 0.2, 0.9]], requires_grad=True)
    values, scale = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True), torch.tensor([[1.0]])
    found = FAKE_QUANTIZE_CODEBOOK(weight, values, scale)
    assert found.tolist() == [[-1.0, 0.0, 0.0, 1.0]]
    found.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert weight.grad is not None
    assert values.grad is not None
    assert weight.grad.tolist() == [[0.0, 2.0, 3.0, 4.0]]
    assert values.grad.tolist() == [1.0, 5.0, 4.0]


@pytest.mark.parametrize("options", KINDS)
def test_integers_are_exact_in_every_backend(net: Model, options: str) -> None:
    simulated = calibrated(net, options)
    inputs = seeded_inputs(net.inputs, 0)
    lowered, (outcome,) = through(simulated, "lower-to-integer")
    assert not list(calls(lowered.module.graph, FAKE_QUANTIZE_CODEBOOK))
    (oracle,) = lowered(*inputs)
    assert relative_difference(simulated(*inputs)[0], oracle) < 0.02
    integers = len(list(calls(lowered.module.graph, integer.conv2d, integer.linear)))
    coded = len(list(calls(lowered.module.graph, DECODE)))
    assert (integers, coded) == ((2, 2) if "group" in options else (4, 0))
    if coded:
        why = "its weight has scales for groups of input channels, and sums need one for each output channel"
        assert [skip.reason for skip in outcome.skipped if skip.node in ("conv2d_2", "linear")] == [why] * 2
    (native,) = run(lowered, "native", inputs)
    if coded:
        assert relative_difference(native, oracle) < 0.02
    else:
        np.testing.assert_array_equal(native, oracle)
    for target in ("onnx-17", "onnx-21"):
        assert relative_difference(run(simulated, target, inputs)[0], oracle) < 0.05


def test_one_pipeline_from_the_float_model_to_code(net: Model) -> None:
    """Where code is made, integer kernels are made."""
    backend = BACKENDS.get("tvm")
    simulated = calibrated(net, "weight_format=codebook")
    assert backend.completion(simulated)
    with pytest.raises(CompileError, match="cannot build 4 node"):
        backend.build(simulated, Target.parse("native"), Workspace(threads=1))


@pytest.mark.parametrize(("options", "kinds"), [("weight_format=codebook", {"Gather"}), ("group=8", {"Reshape"})])
def test_integer_codebooks_are_written_in_4_bits(options: str, kinds: set[str]) -> None:
    torch.manual_seed(0)
    layer = from_module(nn.Conv2d(16, 8, 3), torch.zeros(1, 16, 8, 8))
    artefact = BACKENDS.get("onnx").build(calibrated(layer, options), Target.parse("onnx-21"), Workspace())
    graph = onnx.load_from_string(artefact.files["model.onnx"]).graph
    assert onnx.TensorProto.INT4 in {stored.data_type for stored in graph.initializer}
    usual = {"QuantizeLinear", "DequantizeLinear", "Conv", "Cast"}
    assert {node.op_type for node in graph.node} == usual | kinds


def run(model: Model, text: str, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    target = Target.parse(text)
    backend = BACKENDS.get(target.backend)
    return tuple(backend.load(backend.build(model, target, Workspace(threads=1)), 1)(*inputs))


def test_weights_without_whole_groups_are_said(net: Model) -> None:
    model, outcomes = through(net, "insert-fake-quant{weight_bits=4 group=16},calibrate")
    note = "2 of 4 weights get one scale for each output channel, for their input channels are no multiple of group=16"
    assert note in outcomes[0].notes
    assert set(codebooks(model)) == {"square.weight", "fc.weight"}


@pytest.mark.parametrize("format", ["log", "codebook"])
def test_weights_are_rounded_to_the_codebook(format: str, net: Model) -> None:
    text = f"insert-fake-quant{{weight_bits=4 weight_format={format}}},calibrate"
    plain, rounded = (through(net, text + more)[0] for more in ("", ",round-weights{always=true}"))
    inputs = [np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32) for seed in range(8)]
    wanted = [net(image)[0] for image in inputs]
    errors = [sum(np.square(m(x)[0] - y).sum() for x, y in zip(inputs, wanted, strict=True)) for m in (plain, rounded)]
    assert errors[1] < 0.5 * errors[0]
    for name, (values, scale) in codebooks(rounded).items():
        stored = rounded.module.get_parameter(name).detach()
        torch.testing.assert_close(FAKE_QUANTIZE_CODEBOOK(stored, values, scale), stored, rtol=1e-6, atol=0)


def test_passes_that_correct_leave_scales_of_groups(net: Model) -> None:
    text = "insert-fake-quant{weight_bits=4 weight_format=codebook group=16},calibrate,correct-bias,round-weights"
    _, outcomes = through(net, text)
    assert len(outcomes[2].changed) == 4
    assert outcomes[3].changed == ["conv2d", "conv2d_1"]
    why = "its weight has scales for groups of input channels, and rounding knows one for each output"
    assert [skip.reason for skip in outcomes[3].skipped] == [why] * 2


def test_mixed_precision_measures_the_format_that_was_asked_for(net: Model) -> None:
    text = "insert-fake-quant{weight_format=codebook group=16},mixed-precision{bytes=0.2 bits=4,2},calibrate"
    model, _ = through(net, text)
    assert {len(values) for values, _ in codebooks(model).values()} <= {4, 16, 256}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("weight_format=logg", "did you mean"),
        ("weight_format=codebook{rounds=0}", "rounds must be at least 1"),
        ("group=-1", "group must not be negative"),
        ("group=16 per_channel=false", "many scales a channel"),
        ("group=16 weight_symmetric=false", "group=16 has no form with weight_symmetric=false"),
        ("weight_format=log weight_symmetric=false", "weight_format=log has no form with weight_symmetric=false"),
    ],
)
def test_misuse(options: str, message: str) -> None:
    options = options.replace("codebook{rounds=0}", '"codebook{rounds=0}"')
    with pytest.raises(UsageError) as error:
        Pipeline.parse(f"insert-fake-quant{{{options}}}")
    assert message in f"{error.value} {error.value.help}"

"""8-bit models between tools: what lvc writes runs as int8 elsewhere, what others quantised becomes integers here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lvc.compiler import driver
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load import load as load_model
from lvc.compiler.loaded import load
from lvc.compiler.measure.coverage import Coverage
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import DataSet, Workspace
from lvc.compiler.writing import write_model

onnxruntime = pytest.importorskip("onnxruntime")

SHAPE = (1, 3, 16, 16)
# seven bits, since with eight ONNX Runtime is far from the simulation on AVX2
QUANTISE = "O1,insert-fake-quant{weight_bits=7},calibrate{images=4}"


class Network(torch.nn.Module):
    """A residual block between a convolution, a pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Linear(16, 10)
        self.left, self.right = torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.relu(x + self.right(torch.relu(self.left(x))))
        found: torch.Tensor = self.last(x.mean((2, 3)))
        return found


class Mixer(torch.nn.Module):
    """A gated convolution, and attention between its places with a layer of a smooth function behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = torch.nn.Conv2d(3, 16, 3, 2, padding=1), torch.nn.Conv2d(16, 16, 1)
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide, self.last = torch.nn.Linear(16, 32), torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = (x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0]
        found: torch.Tensor = self.last(torch.nn.functional.gelu(self.wide(x)))
        return found


class Images(list[tuple[np.ndarray, int | None]]):
    """Random images."""


def images(seed: int = 0) -> DataSet:
    random = np.random.default_rng(seed)
    return Images((random.standard_normal(SHAPE).astype(np.float32), None) for _ in range(4))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return from_module(Network().eval(), torch.zeros(SHAPE))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def fused(simulated: Model, folder: Path) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """Write a model as QDQ; return what runs it in ONNX Runtime, and the kinds of its nodes after fusion there."""
    write_model(simulated, folder / "qdq.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    theirs = onnxruntime.InferenceSession(str(folder / "qdq.onnx"), options, providers=["CPUExecutionProvider"])
    onnx = pytest.importorskip("onnx")
    return theirs, [node.op_type for node in onnx.load(str(folder / "fused.onnx")).graph.node]


def assert_within_a_step(ours: np.ndarray, theirs: np.ndarray) -> None:
    """A step of 8 bits that reach from the least to the greatest output."""
    step = np.ptp(ours) / 255
    assert float((np.abs(ours - theirs) <= step).mean()) >= 0.97


def test_quantised_models_run_as_int8_in_onnx_runtime(model: Model, tmp_path: Path) -> None:
    workspace = Workspace(data={"calib": images}, threads=1)
    simulated, _ = Pipeline.parse(QUANTISE).run(model, workspace)
    theirs, kinds = fused(simulated, tmp_path)
    assert kinds.count("QLinearConv") == 3
    ours = load(driver.compile(simulated, "O0", "native", workspace=workspace), threads=1)
    assert "lower-to-integer" in str(ours.artefact.metadata["pipeline"])
    name = theirs.get_inputs()[0].name
    pairs = [(ours(x), theirs.run(None, {name: x})[0]) for x, _ in images(1)]
    assert_within_a_step(*(np.concatenate(found) for found in zip(*pairs, strict=True)))


@pytest.mark.parametrize("options", ["weight_bits=4", "weight_bits=4 weight_format=codebook", "weight_bits=3"])
def test_weights_of_4_bits_run_as_int8_in_onnx_runtime(options: str, model: Model, tmp_path: Path) -> None:
    """They fill half a byte each, and the file read again is the model that was written."""
    onnx = pytest.importorskip("onnx")
    workspace = Workspace(data={"calib": images}, threads=1)
    quantise = QUANTISE.replace("weight_bits=7", options)
    simulated, _ = Pipeline.parse(quantise).run(model, workspace)
    theirs, kinds = fused(simulated, tmp_path)
    assert kinds.count("QLinearConv") == 3
    stored = onnx.load(str(tmp_path / "qdq.onnx")).graph.initializer
    packed = [part for part in stored if part.data_type == onnx.TensorProto.INT4]
    assert sorted(tuple(part.dims) for part in packed) == [(10, 16), (16, 3, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3)]
    assert all(len(part.raw_data) == -(-np.prod(part.dims) // 2) for part in packed)
    ours, again = simulated, load_model(str(tmp_path / "qdq.onnx"))
    whole, _ = Pipeline.parse("lower-to-integer").run(again)
    assert Coverage.of(whole).share == 1
    name = theirs.get_inputs()[0].name
    for x, _ in images(1):
        np.testing.assert_array_equal(ours(x)[0], again(x)[0])
        assert_within_a_step(ours(x)[0], theirs.run(None, {name: x})[0])


def test_gates_and_attention_run_as_int8_in_onnx_runtime(tmp_path: Path) -> None:
    workspace = Workspace(data={"calib": images}, threads=1)
    torch.manual_seed(0)
    mixer = from_module(Mixer().eval(), torch.zeros(SHAPE))
    simulated, _ = Pipeline.parse(QUANTISE).run(mixer, workspace)
    assert Coverage.of(simulated, simulated=True).share == 1
    theirs, kinds = fused(simulated, tmp_path)
    assert {"QLinearMul", "MatMulIntegerToFloat", "QLinearMatMul"} <= set(kinds)
    assert "MatMul" not in kinds
    ours = load(driver.compile(simulated, "O2", "native", workspace=workspace), threads=1)
    name = theirs.get_inputs()[0].name
    pairs = [(ours(x), theirs.run(None, {name: x})[0]) for x, _ in images(1)]
    assert_within_a_step(*(np.concatenate(found) for found in zip(*pairs, strict=True)))


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_models_quantised_by_onnx_runtime_become_integer_kernels(form: str, model: Model, tmp_path: Path) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Random images under the name of the input."""

        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = ({model.inputs[0].name: x} for x, _ in images())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    write_model(Pipeline.parse("O1").run(model)[0], tmp_path / "float.onnx")
    quantization.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "qdq.onnx",
        Reader(),
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType.QUInt8,
        per_channel=form == "QDQ",
        reduce_range=True,
    )
    artefact, report = driver.compile_and_report(str(tmp_path / "qdq.onnx"), "O2", "native", check=True)
    assert "lower-to-integer" in report.pipeline
    (note,) = [note for item in report.passes for note in item.notes if "MACs in integers" in note]
    assert "(100.0 %)" in note
    ours, theirs = load(artefact, threads=1), session(tmp_path / "qdq.onnx")
    name = theirs.get_inputs()[0].name
    pairs = [(ours(x), theirs.run(None, {name: x})[0]) for x, _ in images(1)]
    assert_within_a_step(*(np.concatenate(found) for found in zip(*pairs, strict=True)))


OF_ONNX_RUNTIME = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[1,4,6,6] x) => (float[1,5] y)
    <float s = {0.05}, uint8 z = {120}, float t = {0.02}, uint8 u = {7}, float v = {0.004}, uint8 o = {0},
     int8[5,32] w = {WEIGHTS}, float ws = {0.01}, int8 wz = {0}, int32[5] b = {10, -20, 30, 400, -500}>
    {
        q = QuantizeLinear(x, s, z)
        a = com.microsoft.QLinearAdd(q, s, z, q, s, z, t, u)
        m = com.microsoft.QLinearMul(q, s, z, a, t, u, s, z)
        g = com.microsoft.QLinearSigmoid(m, s, z, v, o)
        l = com.microsoft.QLinearLeakyRelu <alpha = 0.1> (a, t, u, s, z)
        c = com.microsoft.QLinearConcat <axis = 1> (s, z, l, s, z, g, v, o)
        p = com.microsoft.QLinearAveragePool <kernel_shape = [3, 3], strides = [3, 3]> (c, s, z, s, z)
        h = com.microsoft.QLinearGlobalAveragePool(c, s, z, s, z)
        ps = DequantizeLinear(p, s, z)
        hs = DequantizeLinear(h, s, z)
        n = Mul(ps, hs)
        r = Flatten(n)
        f = QuantizeLinear(r, s, z)
        k = com.microsoft.QGemm <transB = 1> (f, s, z, w, ws, wz, b, s, z)
        y = DequantizeLinear(k, s, z)
    }
"""


def test_whole_operators_of_onnx_runtime_are_read(tmp_path: Path) -> None:
    """Each computes what ONNX Runtime computes, up to a step of the result where its place was in the middle."""
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(0)
    weights = ", ".join(map(str, random.integers(-64, 64, 160)))
    path = tmp_path / "whole.onnx"
    onnx.save(onnx.parser.parse_model(OF_ONNX_RUNTIME.replace("WEIGHTS", weights)), path)
    entered, theirs = load_model(str(path)), session(path)
    x = random.standard_normal((8, 1, 4, 6, 6)).astype(np.float32)
    ours = np.concatenate([entered(image)[0] for image in x])
    wanted = np.concatenate([theirs.run(None, {"x": image})[0] for image in x])
    assert np.ptp(wanted) > 1
    assert np.abs(ours - wanted).max() < 0.051
    assert float((np.abs(ours - wanted) < 1e-6).mean()) >= 0.9
    whole, _ = Pipeline.parse("lower-to-integer").run(entered)
    assert Coverage.of(whole).share == 1

"""Operators on integers that ONNX Runtime writes, within a quantised step of what it makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lvc.compiler.load.onnx_importer import from_onnx

onnxruntime = pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(0)
STORED = {
    "a": np.array(0.04, np.float32),
    "b": np.array(0.07, np.float32),
    "small": np.array(1 / 256, np.float32),
    "zero": np.array(0, np.uint8),
    "five": np.array(5, np.uint8),
    "channel": RANDOM.integers(0, 256, (3, 1, 1)).astype(np.uint8),
    "part": RANDOM.integers(0, 256, (1, 2, 5, 4)).astype(np.uint8),
    "matrix": RANDOM.integers(0, 256, (6, 4)).astype(np.uint8),
    "bias": RANDOM.integers(-99, 99, 6).astype(np.int32),
}
OPERATORS = [
    "QLinearAdd(x, a, five, channel, b, zero, b, five)",
    "QLinearMul(x, a, five, channel, b, five, b, zero)",
    "QLinearSigmoid(x, a, five, small, zero)",
    "QLinearLeakyRelu<alpha = 0.3>(x, a, five, b, five)",
    "QLinearAveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1>"
    "(x, a, five, a, zero)",
    "QLinearGlobalAveragePool<channels_last = 0>(x, a, five, a, zero)",
    "QLinearSoftmax<opset = 11>(x, a, five, small, zero)",
    "QLinearSoftmax<opset = 11, axis = 1>(x, a, five, small, zero)",
    "QLinearSoftmax<opset = 13>(x, a, five, small, zero)",
    "QLinearSoftmax<opset = 13, axis = 2>(x, a, five, small, zero)",
    "QLinearConcat<axis = 1>(b, five, x, a, five, part, b, zero)",
    "QGemm<transB = 1, alpha = 0.5>(x, a, five, matrix, b, five, bias, b, zero)",
]


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("node", OPERATORS)
def test_operator(tmp_path: Path, node: str, opset: int) -> None:
    shape = (3, 4) if "Gemm" in node else (1, 3, 5, 4)
    head = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    data = f"uint8[{','.join(map(str, shape))}] x"
    proto = onnx.parser.parse_model(f"{head} g ({data}) => (uint8 y) {{ y = com.microsoft.{node} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    used = set(proto.graph.node[0].input)
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in STORED.items() if n in used)
    file = tmp_path / "model.onnx"
    onnx.save(proto, file)
    x = RANDOM.integers(0, 256, shape).astype(np.uint8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (wanted,), (found,) = session.run(None, {"x": x}), from_onnx(file)(x)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    apart = np.abs(found.astype(int) - wanted.astype(int))
    assert apart.max() <= 1
    assert np.mean(apart > 0) <= 0.1

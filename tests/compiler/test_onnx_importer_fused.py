"""Operators that ONNX Runtime's optimiser makes of several, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.observers import relative_difference

onnxruntime = pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


STORED = {
    "kernel": _normal(4, 3, 3, 3),
    "bias": _normal(4),
    "addend": _normal(1, 4, 5, 4),
    "matrix": _normal(4, 6),
    "turned": _normal(6, 4),
    "widebias": _normal(6),
    "skipped": _normal(1, 3, 5, 4),
    "scale": _normal(4),
}
_SAME = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
OPERATORS = [
    f'FusedConv<{_SAME}, activation = "Relu">(x, kernel, bias, addend)',
    f'FusedConv<{_SAME}, activation = "LeakyRelu", activation_params = [0.3]>(x, kernel, bias)',
    f'FusedConv<{_SAME}, activation = "Clip", activation_params = [-0.5, 0.7]>(x, kernel)',
    f'FusedConv<{_SAME}, activation = "HardSigmoid", activation_params = [0.3, 0.4]>(x, kernel)',
    f'FusedConv<{_SAME}, activation = "Tanh">(x, kernel)',
    'FusedGemm<activation = "LeakyRelu", activation_alpha = 0.2, alpha = 0.5>(r, matrix, widebias)',
    'FusedGemm<activation = "Sigmoid", transB = 1>(r, turned)',
    "FusedMatMul<alpha = 0.25>(x, matrix)",
    "FusedMatMul<transB = 1>(x, turned)",
    "FusedMatMul<transA = 1, alpha = 2.0>(x, x)",
    "QuickGelu(x)",
    "QuickGelu<alpha = 1.0>(x)",
    "Gelu(x)",
    "BiasGelu(x, bias)",
    "FastGelu(x)",
    "FastGelu(x, bias)",
    "SkipLayerNormalization<epsilon = 0.1>(t, u, scale, bias, bias)",
]


def write(folder: Path, node: str, opset: int) -> Path:
    head = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    before = "r = Reshape(x, rows)" if "Gemm" in node else "t = Reshape(x, tokens) u = Reshape(skipped, tokens)"
    before = before if "Gemm" in node or "Skip" in node else ""
    proto = onnx.parser.parse_model(f"{head} g (float[1,3,5,4] x) => (float y) {{ {before} y = com.microsoft.{node} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    stored = {**STORED, "rows": np.array([15, 4]), "tokens": np.array([1, 15, 4])}
    used = {name for each in proto.graph.node for name in each.input}
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in stored.items() if n in used)
    file = folder / "model.onnx"
    onnx.save(proto, file)
    return file


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("node", OPERATORS)
def test_operator(tmp_path: Path, node: str, opset: int) -> None:
    file = write(tmp_path, node, opset)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    x = _normal(1, 3, 5, 4)
    (wanted,), (found,) = session.run(None, {"x": x}), from_onnx(file)(x)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert relative_difference(found, wanted) < 1e-4


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        from_onnx(write(tmp_path, f'FusedConv<{_SAME}, activation = "Celu">(x, kernel)', 17))
    assert "has Celu fused into it" in caught.value.why

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
    "whole": RANDOM.integers(0, 256, (4, 4)).astype(np.uint8),
    "small": np.array(0.02, np.float32),
    "five": np.array(5, np.uint8),
    "projection": _normal(4, 12),
    "projected": _normal(12),
    "wide": _normal(4, 14),
    "widely": _normal(14),
    "further": _normal(1, 2, 15, 15),
    "triple": _normal(12),
    "kept": (np.arange(15) % 4 > 0).astype(np.int32)[None],
    "places": RANDOM.permutation(15)[None],
    "start": np.array([2]),
    "cosines": _normal(20, 2),
    "lengths": np.array([9], np.int32),
    "cosine": _normal(20, 1),
    "sine": _normal(20, 1),
    "heads4": _normal(1, 2, 6, 2),
    "keys5": _normal(1, 6, 2, 2, 2),
    "sines": _normal(20, 2),
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
    "SkipSimplifiedLayerNormalization<epsilon = 0.1>(t, u, scale)",
    "SkipSimplifiedLayerNormalization(t, u, scale, bias)",
    "SimplifiedLayerNormalization<epsilon = 0.1, axis = -1>(t, scale)",
    "TransposeMatMul<transB = 1>(x, turned)",
    "MatMulIntegerToFloat(q, whole, small, scale, five)",
    "MatMulIntegerToFloat(q, whole, small, small, five, five, bias)",
    "DynamicQuantizeMatMul(x, whole, scale)",
    "DynamicQuantizeMatMul(x, whole, small, five, bias)",
    "Attention<num_heads = 2>(t, projection, projected)",
    "Attention<num_heads = 2, unidirectional = 1, scale = 0.3>(t, projection, projected)",
    "Attention<num_heads = 2>(t, projection, projected, kept)",
    "Attention<num_heads = 2, qkv_hidden_sizes = [4, 4, 6]>(t, wide, widely)",
    'Attention<num_heads = 2>(t, projection, projected, "", "", further)',
    "MultiHeadAttention<num_heads = 2>(t, u, v)",
    "MultiHeadAttention<num_heads = 2, scale = 0.3>(t, u, v, triple)",
    'MultiHeadAttention<num_heads = 2>(t, u, v, "", kept, further)',
    "MultiHeadAttention<num_heads = 2, unidirectional = 1>(t, u, v)",
    "MultiHeadAttention<num_heads = 2>(t, heads4, heads4)",
    "RotaryEmbedding<num_heads = 2, rotary_embedding_dim = 2>(w, places, cosine, sine)",
    "RotaryEmbedding<num_heads = 1>(t, places, cosines, sines)",
    "RotaryEmbedding<num_heads = 1, interleaved = 1>(t, start, cosines, sines)",
]


def write(folder: Path, node: str, opset: int) -> Path:
    head = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    before = "r = Reshape(x, rows)" if "Gemm" in node else "t = Reshape(x, tokens) u = Reshape(skipped, tokens)"
    before += " v = Mul(t, u)" if "(t, u, v" in node else ""
    before = before if "Gemm" in node or "(t, " in node else ""
    if "(w, " in node:
        before = "t = Reshape(x, tokens) w = Concat<axis = 2>(t, t)"
    if "(q, " in node:
        before = "scaled = Mul(x, twenty) moved = Add(scaled, hundred) q = Cast<to = 2>(moved)"
    domain = "" if node.startswith("Simplified") else "com.microsoft."  # which ONNX Runtime has in the standard's
    proto = onnx.parser.parse_model(f"{head} g (float[1,3,5,4] x) => (float y) {{ {before} y = {domain}{node} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    numbers = {"twenty": np.array(20, np.float32), "hundred": np.array(100, np.float32)}
    stored = {**STORED, **numbers, "rows": np.array([15, 4]), "tokens": np.array([1, 15, 4])}
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


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("MultiHeadAttention<num_heads = 2>(t, keys5)", "packed by heads"),
        ("MultiHeadAttention<num_heads = 2>(t, heads4, heads4, triple)", "keys that are divided by heads already"),
        ('MultiHeadAttention<num_heads = 2>(t, t, t, "", "", "", heads4, heads4)', "past keys and values"),
        ("Attention<num_heads = 2>(t, projection, projected, lengths)", "holds lengths"),
        ("Attention<num_heads = 2, do_rotary = 1>(t, projection, projected)", "by their places"),
        ("RotaryEmbedding<num_heads = 1, scale = 0.5>(t, places, cosines, sines)", "scales its places"),
    ],
)
def test_other_forms_of_attention_are_refused(tmp_path: Path, node: str, why: str) -> None:
    with pytest.raises(CompileError) as caught:
        from_onnx(write(tmp_path, node, 17))
    assert why in caught.value.why

"""ONNX's own node tests, run through the ONNX importer: one model and its expected outputs a case."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lvc.compiler.errors import LvcError
from lvc.compiler.ir.counts import cut
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.load.onnx_importer.values import DTYPES, HALVES, type_name

_OPERATORS = """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear DFT Div Dropout DynamicQuantizeLinear
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU Hardmax HardSigmoid HardSwish Identity If
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool LRN LSTM MatMul MatMulInteger Max MaxPool MaxUnpool Mean MeanVarianceNormalization Min
    Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QLinearConv QLinearMatMul QuantizeLinear
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize RMSNormalization RNN RoiAlign RotaryEmbedding Round Scan Scatter
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Upsample Where Xor
"""
VISION_OPERATORS = _OPERATORS.split()

UNLISTED = ("Unique",)
"""Operators that are converted to a refusal."""

# operands that say what to do rather than being worked on; a case that gives them as inputs has them frozen
_SETTINGS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Scatter": (1,),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{operator: (1,) for operator in VISION_OPERATORS if operator.startswith("Reduce")},
}


@dataclass(frozen=True)
class Case:
    """One of ONNX's cases: its name, the operator it is about, the model, and inputs with expected outputs.

    ``settings`` names the inputs that a real model stores: shapes, axes, pads and their like.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    settings: frozenset[str]
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float


@cache
def all_cases() -> tuple[Case, ...]:
    """Load every case that the package onnx ships; takes seconds, since onnx computes them anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        loaded = load_model_tests(kind="node")
    named = {case.name: case for case in loaded}
    cases = []
    for case in loaded:
        base = named.get(case.name.partition("_expanded")[0], case).model.graph
        settings = frozenset(_settings(base) | _settings(case.model.graph))
        cases.append(Case(case.name, base.node[0].op_type, case.model, settings, case.data_sets, case.rtol, case.atol))
    return tuple(cases)


def vision_cases() -> list[Case]:
    return [case for case in all_cases() if case.operator in VISION_OPERATORS]


# why the importer refuses a case, by its name; the first that fits counts
_REFUSED = {
    r"col2im_5d": "windows of three axes",
    r"training_(mode|dropout)": "training mode",
    r"(de)?quantizelinear_blocked": "quantisation in blocks",
    r"_string": "text is not a tensor of numbers",
    r"identity_(sequence|opt)|if_(seq|opt)": "sequences and optionals are not tensors",
    r"maxunpool.*with_output_shape": "a result larger than its windows, of which readers of ONNX differ",
    r"batch_diagonal": "the diagonal of an operand",
    r"loop1\d_seq": "sequences and optionals are not tensors",
    r"test_scan_sum": "the batch of opset 8",
    r"test_not_\dd": "opset 1",
    r"attention_.*(padded_kv|nonpad|causal_with_past|window_with_past|ext_cache)(?!.*_expanded)": (
        "key and value caches: the standard's own expansion fails on them"
    ),
}
# what the importer converts and the case expects otherwise
_OTHERWISE = {
    r"downsample_scales_(linear|cubic)_align_corners$": (
        "the case divides by scale * size where the standard's text, PyTorch and ONNX Runtime take the whole size"
    ),
}


def refusal(case: Case) -> str:
    """Return why a case must be refused; an empty text if it must not."""
    unknown = sorted(name for name in map(type_name, _element_types(case.model.graph)) if name not in DTYPES)
    if unknown:
        return f"element types outside of the dialect ({', '.join(unknown)})"
    return next((reason for pattern, reason in _REFUSED.items() if re.search(pattern, case.name)), "")


def difference(case: Case) -> str:
    """Return why a case's expected outputs are not what the importer's model gives; an empty text if they must be."""
    return next((reason for pattern, reason in _OTHERWISE.items() if re.search(pattern, case.name)), "")


def _element_types(graph: onnx.GraphProto) -> set[int]:
    """Return the element types that a graph names: those of inputs, outputs, stored tensors and casts."""
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    kinds.update(tensor.data_type for tensor in graph.initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.name in ("to", "dtype"):
            kinds.add(attribute.i)
        elif attribute.HasField("t"):
            kinds.add(attribute.t.data_type)
    return kinds - {onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING}


def run_case(case: Case, folder: Path) -> str:
    """Load a case's model through the importer and compare; return an empty text, or the reason why it fails."""
    file = folder / f"{case.name}.onnx"
    file.write_bytes(case.model.SerializeToString())
    try:
        for inputs, wanted in case.data:
            given = list(zip(case.model.graph.input, inputs, strict=False))
            frozen = {value.name: array for value, array in given if value.name in case.settings}
            model = from_onnx(file, constants=frozen)
            verify(model)
            arrays = [_as_array(array) for value, array in given if value.name not in frozen]
            _compare(cut(model.outputs, model.counts, model(*arrays)), [_as_array(array) for array in wanted], case)
    except LvcError as error:
        return f"{error.what}: {error.why}"
    except (AssertionError, TypeError) as error:
        return "wrong: " + " ".join(str(error).split())[:300]
    return ""


def _as_array(value: Any) -> np.ndarray:
    """Return a case's value, which may be a stored tensor, as an array; half precision as float32."""
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    return array.astype(np.float32) if array.dtype.name in HALVES else array


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max(initial=0))


_ROUNDING = {"float16": 2**-9, "bfloat16": 2**-7}
"""What rounding to half precision may add, relative to the largest value: the importer computes in float32."""


_NOISE = {"DFT": 1e-6}
"""What the cases' own single precision has put where the result is zero."""


def _settings(graph: onnx.GraphProto) -> set[str]:
    inputs = {value.name for value in graph.input}
    return {
        node.input[index]
        for node in graph.node
        for index in _SETTINGS.get(node.op_type, ())
        if index < len(node.input) and node.input[index] in inputs
    }


def _compare(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], case: Case) -> None:
    assert len(found) == len(wanted)
    types = map(type_name, _element_types(case.model.graph))
    rounding = max((_ROUNDING[name] for name in types if name in HALVES), default=0.0)
    noise = _NOISE.get(case.operator, 0.0)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype, f"{ours.dtype} instead of {theirs.dtype}"
        assert ours.shape == theirs.shape, f"shape {ours.shape} instead of {theirs.shape}"
        np.testing.assert_allclose(
            ours, theirs, rtol=case.rtol, atol=max(case.atol, noise, rounding and rounding * _largest(theirs))
        )

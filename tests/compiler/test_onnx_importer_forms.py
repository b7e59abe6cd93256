"""Forms of operators that are easily overlooked: what ONNX Runtime makes of them, or that they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_onnx_importer import check_against_runtime, write

from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer import from_onnx

STORED: dict[str, np.ndarray] = {
    "scales": np.array([1, 1, 1, 1.3], np.float32),
    "smaller": np.array([1, 1, 0.6, 0.7], np.float32),
    "none": np.array([], np.float32),
    "noaxes": np.array([], np.int64),
    "before": np.array([-9]),
    "last": np.array([3]),
    "far": np.array([2**63 - 1]),
    "near": np.array([-(2**63)]),
    "axis": np.array([3]),
    "back": np.array([-2]),
    "w": np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4, 1, 1),
    "two": np.array([1, 2], np.float32),
    "four": np.array([1, 2, -3, 4], np.float32),
    "step": np.float32(0.5) * np.ones((), np.float32),
    "zero": np.zeros((), np.uint8),
    "depth": np.array(4),
    "places": np.array([[0, 1], [3, -4]]),
    "outside": np.array([[0, 5], [3, -4]]),
    "double": np.ones((4, 4, 1, 1)),
}

RIGHT = {
    "Resize to the same sizes": (13, "y = Resize<mode = \"linear\">(x, none, scales)"),
    "Upsample to the same sizes": (9, "y = Upsample(x, scales)"),
    "Resize 10 to fewer elements": (10, "y = Resize(x, smaller)"),
    "Slice backwards from before the first": (13, "y = Slice(x, before, near, axis, back)"),
    "Slice backwards to the largest number": (13, "y = Slice(x, last, far, axis, back)"),
    "Squeeze by no axes, which means all": (13, "a = ReduceMax<axes = [1]>(x)  y = Squeeze(a, noaxes)"),
    "Clip without bounds, opset 6's": (9, "y = Clip(x)"),
    "Clip with one bound": (9, "y = Clip<max = 0.5>(x)"),
    "Clip, the upper bound alone": (13, "y = Clip(x, , step)"),
    "GroupNormalization, one scale a group": (18, "y = GroupNormalization<num_groups = 2>(x, two, two)"),
    "GroupNormalization, one scale a channel": (21, "y = GroupNormalization<num_groups = 2>(x, four, four)"),
    "MeanVarianceNormalization of nearly equal values": (
        13, "a = Mul(x, step)  b = Concat<axis = 1>(x, x)  y = MeanVarianceNormalization<axes = [1]>(b)"),
    "DequantizeLinear": (21, "q = QuantizeLinear(x, step)  y = DequantizeLinear(q, step)"),
    "Conv that names its kernel": (11, "y = Conv<kernel_shape = [1, 1]>(x, w)"),
    "MaxPool in steps beyond its kernel": (
        11, "y = MaxPool<kernel_shape = [2, 1], strides = [2, 2], auto_pad = \"VALID\">(x)"),
}  # fmt: skip


@pytest.mark.parametrize("form", RIGHT)
def test_form(tmp_path: Path, form: str) -> None:
    opset, nodes = RIGHT[form]
    stored = {name: value for name, value in STORED.items() if name in nodes}
    file = write(tmp_path, f"g (float[2,4,5,4] x) => (float y) {{ {nodes} }}", opset, **stored)
    check_against_runtime(file, from_onnx(file))


REFUSED = {
    "a kernel that is not the weights'": (11, "y = Conv<kernel_shape = [3, 3]>(x, w)", "the weights' is [1, 1]"),
    "pools that readers of ONNX disagree on": (
        11, "y = MaxPool<kernel_shape = [2, 2], dilations = [2, 2], auto_pad = \"SAME_UPPER\">(x)", "give its pads"),
    "transposed convolution by SAME beyond its kernel": (
        11, "y = ConvTranspose<strides = [3, 3], auto_pad = \"SAME_UPPER\">(x, w)", "readers of ONNX differ"),
    "an index beyond the data": (13, "y = GatherND(x, outside)", "an index lies outside of"),
    "a place beyond the data": (13, "u = GatherND(x, places)  y = ScatterND(x, outside, u)", "an index lies outside"),
    "a mask before opset 12": (10, "z, y = Dropout(x)", "its mask, which opset 10 does not define"),
    "an axis that does not exist": (13, "y = Flatten<axis = 5>(x)", "axis 5 does not exist in 5 dimensions"),
    "a slope larger than the data": (13, "a = ReduceMax<axes = [1]>(x)  y = PRelu(a, w)", "does not broadcast to"),
    "pooling over no axes": (13, "a = Flatten(x)  y = GlobalAveragePool(a)", "have no spatial ones"),
    "elements resized to none": (13, "a = ReduceMax<axes = [2, 3]>(x)  y = Resize(a, none, smaller)", "resized to 0"),
    "two types": (13, "y = Conv(x, double)", "'x' is float32 and 'double' is float64"),
    "two types behind others": (13, "a = Cast<to = 11>(x)  y = Add(x, a)", "'x' is float32 and 'a' is float64"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_form_is_refused(tmp_path: Path, form: str) -> None:
    opset, nodes, why = REFUSED[form]
    stored = {name: value for name, value in STORED.items() if name in nodes}
    with pytest.raises(CompileError) as caught:
        from_onnx(write(tmp_path, f"g (float[2,4,5,4] x) => (float y) {{ {nodes} }}", opset, **stored))
    assert why in caught.value.why
    assert "(" in caught.value.where or ": " in caught.value.why

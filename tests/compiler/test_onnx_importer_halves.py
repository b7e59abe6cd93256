"""Models in half precision are computed in float32, and a note says so."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_onnx_importer import ops

import lvc
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.load.onnx_importer.reference import HALF_BOUND

onnxruntime = pytest.importorskip("onnxruntime")

NET = """g (HALF[1,3,12,12] image) => (HALF[1,5] scores, HALF[1,4,6,6] features) {
    a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, weight, bias)
    features = LeakyRelu<alpha = 0.25>(a)
    wide = Cast<to = 1>(features)
    pooled = GlobalAveragePool(wide)
    narrow = Cast<to = NUMBER>(pooled)
    flat = Flatten(narrow)
    scores = Gemm<transB = 1>(flat, matrix)
}"""
SHAPES = {"weight": (4, 3, 3, 3), "bias": (4,), "matrix": (5, 4)}


def write(folder: Path, half: np.dtype) -> Path:
    """The net with random weights in a half precision, its activations too."""
    random = np.random.default_rng(0)
    name, number = ("float16", 10) if half == np.float16 else ("bfloat16", 16)
    text = NET.replace("HALF", name).replace("NUMBER", str(number))
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    for name, shape in SHAPES.items():
        proto.graph.initializer.append(numpy_helper.from_array(random.standard_normal(shape).astype(half), name))
    file = folder / "model.onnx"
    onnx.save(proto, file)
    return file


def test_float16_matches_onnx_runtime(tmp_path: Path) -> None:
    file = write(tmp_path, np.dtype(np.float16))
    model = from_onnx(file)
    verify(model)
    assert [str(v) for v in model.inputs] == ["image: f32[1,3,12,12]"]
    assert [str(v) for v in model.outputs] == ["scores: f32[1,5]", "features: f32[1,4,6,6]"]
    assert ops(model) == ["conv2d", "leaky_relu", "mean", "reshape", "linear"]
    image = np.random.default_rng(1).standard_normal((1, 3, 12, 12)).astype(np.float16)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": image})
    compiled = lvc.load(lvc.compile(str(file), "O2"))(image.astype(np.float32))
    for ours, built, theirs in zip(model(image.astype(np.float32)), compiled, wanted, strict=True):
        bound = 4 * 2**-11 * np.abs(theirs).max()  # four results in a row, each rounded to 11 bits
        np.testing.assert_allclose(ours, theirs.astype(np.float32), rtol=0, atol=bound)
        np.testing.assert_allclose(built, ours, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_exact_but_for_rounding_less(tmp_path: Path) -> None:
    """The stored values are those of the file; nothing is rounded behind them."""
    file = write(tmp_path, np.dtype(ml_dtypes.bfloat16))
    model = from_onnx(file)
    verify(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}
    for name, value in model.module.named_parameters():
        assert value.dtype.itemsize == 4
        np.testing.assert_array_equal(value.detach().numpy(), stored[name].astype(np.float32))
    assert {value.spec.dtype for value in (*model.inputs, *model.outputs)} == {model.inputs[0].spec.dtype}


@pytest.mark.parametrize(("half", "name"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")])
def test_a_note_says_what_was_widened(tmp_path: Path, half: type, name: str) -> None:
    assert from_onnx(write(tmp_path, np.dtype(half))).notes == [
        f"{name} was widened to float32: 'image', 'scores', 'features' of its signature; 3 stored tensor(s); "
        "1 cast(s), which round nothing now"
    ]


def test_models_in_float32_have_no_note(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    onnx.save(proto, tmp_path / "model.onnx")
    assert from_onnx(tmp_path / "model.onnx").notes == []


def test_a_file_that_is_half_only_inside_is_held_to_the_bound_of_half_precision(tmp_path: Path) -> None:
    """The file rounds to 11 bits between its casts and the model does not, which is no fault of the model."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,8,8] x) => (float[1,3,8,8] y) {
            narrow = Cast<to = 10>(x)
            doubled = Mul(narrow, narrow)
            y = Cast<to = 1>(doubled)
        }"""
    )
    onnx.save(proto, tmp_path / "model.onnx")
    model = from_onnx(tmp_path / "model.onnx")
    assert model.reference is not None
    assert model.reference.bound == HALF_BOUND
    lvc.compile(model, "O2", target="reference")

"""Photographs for models that take 1xHxWx3, with numbers or bytes: they calibrate, evaluate and run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lvc.compiler.cli import main
from lvc.compiler.data import open_data
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), np.uint8)
RANDOM = np.random.default_rng(1).standard_normal((5, 3, 3, 3)).astype(np.float32)


def inputs(*shape: int, dtype: str = "f32") -> tuple[Value, ...]:
    return (Value("x", TensorSpec(shape, dtype)),)


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for place, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{place}.png")
    return folder


def network(path: Path, *, takes_bytes: bool) -> str:
    """An ONNX model of 1x8x10x3, as exporters of channels-last frameworks write it; it normalises by itself."""
    kind = TensorProto.UINT8 if takes_bytes else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "scale"], ["small"]),
        helper.make_node("Transpose", ["small"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["maps"]),
        helper.make_node("ReduceMean", ["maps"], ["y"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "channels_last",
        [helper.make_tensor_value_info("x", kind, (1, 8, 10, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(RANDOM, "w"), numpy_helper.from_array(np.float32([100.0]), "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def test_images_come_with_their_channels_last(tmp_path: Path) -> None:
    data = open_data(str(photographs(tmp_path / "pics")), Preprocess.parse("range=255"), inputs(1, 8, 10, 3))
    np.testing.assert_array_equal(np.concatenate([array for array, _ in data]), PIXELS.astype(np.float32))


@pytest.mark.parametrize("dtype", ["u8", "i32"])
def test_models_of_integers_get_bytes(tmp_path: Path, dtype: str) -> None:
    data = open_data(
        str(photographs(tmp_path / "pics")), Preprocess.parse("range=255"), inputs(1, 3, 8, 10, dtype=dtype)
    )
    found = np.concatenate([array for array, _ in data])
    assert found.dtype == {"u8": np.uint8, "i32": np.int32}[dtype]
    np.testing.assert_array_equal(found, PIXELS.transpose(0, 3, 1, 2))


def test_bytes_are_not_made_of_fractions(tmp_path: Path) -> None:
    """White would become 1, a byte as well, and nobody would be told."""
    data = open_data(str(photographs(tmp_path / "pics")), Preprocess.parse("range=1"), inputs(1, 8, 10, 3, dtype="u8"))
    with pytest.raises(UsageError, match="no integers") as caught:
        list(data)
    assert "range=255" in caught.value.help


@pytest.mark.parametrize("layout", ["rgb", "bgr"])
def test_bytes_in_an_array_are_images_if_there_is_a_way_to_prepare_them(tmp_path: Path, layout: str) -> None:
    np.savez(tmp_path / "data.npz", x=PIXELS)
    prepare = Preprocess.parse(f"range=255,mean=10,layout={layout}")
    found = np.concatenate([array for array, _ in open_data(str(tmp_path / "data.npz"), prepare, inputs(1, 8, 10, 3))])
    wanted = PIXELS[..., :: 1 if layout == "rgb" else -1].astype(np.float32) - 10
    np.testing.assert_array_equal(found, wanted)
    as_they_are = open_data(str(tmp_path / "data.npz"), None, inputs(1, 8, 10, 3))
    np.testing.assert_array_equal(np.concatenate([array for array, _ in as_they_are]), PIXELS.astype(np.float32))


@pytest.mark.parametrize(
    ("preprocess", "shape", "help"),
    [
        ("range=255", (1, 16, 20, 3), "resize=16x20"),
        ("range=255", (1, 8, 10, 1), "layout=gray"),
        ("range=255,layout=gray", (1, 8, 10, 3), "layout=rgb"),
        ("range=255", (1, 4, 8, 10), "images have 1 or 3 channels"),
    ],
)
def test_what_does_not_fit_says_what_to_give(
    tmp_path: Path, preprocess: str, shape: tuple[int, ...], help: str
) -> None:
    data = open_data(str(photographs(tmp_path / "pics")), Preprocess.parse(preprocess), inputs(*shape))
    with pytest.raises(UsageError, match="and input 'x' takes") as caught:
        list(data)
    assert help in caught.value.help


@pytest.mark.parametrize("takes_bytes", [False, True])
def test_photographs_calibrate_and_run_a_model(
    tmp_path: Path, takes_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "pics")
    model = network(tmp_path / "net.onnx", takes_bytes=takes_bytes)
    prepared = ["--preprocess", "range=255"]
    assert main(["opt", model, "-p", "int8-fast", "--data", "calib=pics", *prepared, "-o", "small.lvc"]) == 0
    assert main(["run", model, "pics/0.png", *prepared, "-o", "float.npz"]) == 0
    assert main(["run", "small.lvc", "pics/0.png", "-o", "small.npz"]) == 0
    planes = PIXELS[0].transpose(2, 0, 1).astype(np.float64) / 100
    windows = np.lib.stride_tricks.sliding_window_view(planes, (3, 3), (1, 2))
    wanted = np.einsum("chwij,ocij->ohw", windows, RANDOM.astype(np.float64)).mean((1, 2))
    np.testing.assert_allclose(np.load("float.npz")["y"][0], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.load("small.npz")["y"][0], wanted, rtol=0, atol=0.05 * np.abs(wanted).max())

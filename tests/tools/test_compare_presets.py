"""tools/compare_presets.py measures both presets on a model out of a wheel, once, and says which package is missing."""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the tools are not part of the wheel")
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    import compare_presets
    import field_models

    return compare_presets, field_models


def network() -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["maps"]),
            helper.make_node("Flatten", ["maps"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["y"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 2))],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def pictures() -> list[tuple[Image.Image, int]]:
    """Images with the class that the float model gives them."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), np.uint8)
    scores = np.einsum("nhwc,ochw->no", pixels / 255.0, WEIGHT)
    return [(Image.fromarray(image), int(row.argmax())) for image, row in zip(pixels, scores, strict=True)]


def test_both_presets_are_measured_once(
    tools: tuple[ModuleType, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare, field = tools
    small = field.FieldModel(
        "net", "not-on-pypi", "net.onnx", (1, 3, 8, 8), field.preprocessed("range=1"), pictures, field.first_choice
    )
    monkeypatch.setitem(field.MODELS, "small", small)
    rows = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["compare", "--models", "small", "--wheels", str(tmp_path), "--json", str(rows)])
    compare.main()
    assert "small is skipped: not-on-pypi is neither installed nor in --wheels" in capsys.readouterr().err

    with zipfile.ZipFile(tmp_path / "not_on_pypi-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("inside/net.onnx", network())
    compare.main()
    found = {row["preset"]: row for row in json.loads(rows.read_text())}
    assert list(found) == ["float", "int8-fast", "int8"]
    assert found["float"]["right"] == 1.0
    assert found["int8"]["sqnr_in_front"] > 20
    assert found["int8"]["sqnr"] != found["int8"]["sqnr_in_front"]
    capsys.readouterr()

    monkeypatch.setattr(compare, "measure", None)
    compare.main()
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["small", "float"]


def test_source_archives_are_read_too(tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    _, field = tools
    (tmp_path / "net.onnx").write_bytes(network())
    with tarfile.open(tmp_path / "not-on-pypi-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "net.onnx", "not-on-pypi-1.0/inside/net.onnx")
    assert field.content("not-on-pypi", "net.onnx", tmp_path) == network()


def test_a_line_is_read_as_it_was_written(tools: tuple[ModuleType, ModuleType]) -> None:
    _, field = tools
    model = onnx.ModelProto()
    helper.set_model_props(model, {"character": "a\nb"})
    steps = np.eye(4)[[0, 1, 1, 0, 1, 3, 2, 2, 0]][None]
    assert field.decoded(model)([steps]) == "aa b"

"""Names are free in ONNX: those that Python or a module reserves, those that are no identifiers, those that collide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lvc
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.onnx_importer import from_onnx

NAMES = ["class", "None", "self", "torch", "forward", "training", "layer.class.weight", "layer.forward", "_parameters",
         "0.w", "a/b:0", "größe", "日本", "..", "'\"\\", "{x}%d", "a b\n", "x" * 3000]  # fmt: skip


def write(file: Path, data: str, weights: tuple[str, str], result: str) -> None:
    """A convolution by ones, so that its result is 3, then an addition of 7; both nodes are called as the data."""
    nodes = [
        helper.make_node("Conv", [data, weights[0]], ["between"], name=data),
        helper.make_node("Add", ["between", weights[1]], [result], name=data),
    ]
    stored = [np.ones((4, 3, 1, 1), np.float32), np.full((1, 4, 1, 1), 7, np.float32)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(data, TensorProto.FLOAT, (1, 3, 2, 2))],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, (1, 4, 2, 2))],
        [numpy_helper.from_array(array, name) for array, name in zip(stored, weights, strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def check(file: Path) -> None:
    model = from_onnx(file)
    verify(model)
    np.testing.assert_array_equal(model(np.ones((1, 3, 2, 2), np.float32))[0], 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["data", "weight", "result"])
def test_any_name(tmp_path: Path, name: str, role: str) -> None:
    file = tmp_path / "model.onnx"
    write(
        file,
        name if role == "data" else "x",
        (name, "w") if role == "weight" else ("v", "w"),
        name if role == "result" else "y",
    )
    check(file)
    if role == "result":
        assert from_onnx(file).output_names == (name,)


@pytest.mark.parametrize(
    "weights", [("a/b", "a:b"), ("a.b", "a.b.c"), ("a.b.c", "a.b"), ("class", "class_"), ("class_", "class")]
)
def test_names_that_become_equal(tmp_path: Path, weights: tuple[str, str]) -> None:
    write(tmp_path / "model.onnx", "x", weights, "y")
    check(tmp_path / "model.onnx")


def test_names_reach_compiled_code(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write(file, "lambda", ("class", "layer.import"), "../é 1")
    compiled = lvc.load(lvc.compile(str(file), "O2"))
    np.testing.assert_array_equal(compiled(np.ones((1, 3, 2, 2), np.float32)), 10)

"""Functions in ONNX files: attributes that a call leaves out, names, opsets; operators that the standard expands."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from test_onnx_importer import check_against_runtime, ops, write

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.load.onnx_importer import from_onnx

LEAKY = "leaky <alpha: float = 0.7> (a) => (b) { b = LeakyRelu<alpha: float = @alpha>(a) }"
FUNCTIONS = {
    "a default": ("y = my.own.leaky(x)", LEAKY),
    "a given attribute": ("y = my.own.leaky<alpha = 0.3>(x)", LEAKY),
    "a default inside another function": (
        "y = my.own.both(x)", LEAKY + " HEAD both (a) => (c) { b = my.own.leaky(a) c = my.own.leaky<alpha = 0.2>(b) }"),
    "a later result alone": ("n, y = my.own.two(x)", "two (a) => (b, c) { b = Relu(a)  c = Exp(a) }"),
    "an operand left out": ("y = my.own.limited(x)", "limited (a, low) => (b) { b = Clip(a, low) }"),
    "names that are taken": (
        "b = Neg(x)  z = my.own.two(b)  y = Add(z, b)", "two (a) => (c) { b = Exp(a)  c = Add(b, a) }"),
    "the name of an operator": ("y = my.own.Relu(x)", "Relu (a) => (b) { b = Exp(a) }"),
}  # fmt: skip


def model(folder: Path, nodes: str, functions: str, opset: int = 17) -> Path:
    head = f'<domain: "my.own", opset_import: ["": {opset}, "my.own": 1]>'
    text = f"""<ir_version: 9, opset_import: ["": 17, "my.own": 1]>
        g (float[2,4] x) => (float[2,4] y) {{ {nodes} }} {head} {functions.replace("HEAD", head)}"""
    file = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    return file


@pytest.mark.parametrize("form", FUNCTIONS)
def test_functions_of_the_model(tmp_path: Path, form: str) -> None:
    file = model(tmp_path, *FUNCTIONS[form])
    check_against_runtime(file, from_onnx(file))


def test_nodes_of_a_function_are_named_after_its_call(tmp_path: Path) -> None:
    nodes, body = "z = my.own.two(x)  r = Neg(z)  y = my.own.two(r)", "two (a) => (c) { b = Exp(a)  c = Add(b, a) }"
    module = from_onnx(model(tmp_path, nodes, body)).module
    found = [origin(node).partition(":")[0] for node in calls(module.graph)]
    assert found == ["node z (two)", "node z (two)", "node r (Neg)", "node y (two)", "node y (two)"]


def test_a_function_of_another_opset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="uses another opset than the model") as caught:
        from_onnx(model(tmp_path, "y = my.own.soft(x)", "soft (a) => (b) { b = Softmax(a) }", opset=11))
    assert "function my.own.soft" in caught.value.where


def test_a_function_cannot_redefine_an_operator(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }
        <domain: "", opset_import: ["": 17]> Relu (a) => (b) { b = Exp(a) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match="redefines ONNX's Relu"):
        from_onnx(tmp_path / "model.onnx")


GRIDS = [("1,2,3", "1, 3, 12, 10"), ("2,2,3", "2, 1, 5, 4"), ("1,3,4", "1, 2, 3, 4, 5"), ("2,3,4", "2, 1, 4, 3, 2")]


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize(("theta", "size"), GRIDS)
def test_affine_grid(tmp_path: Path, theta: str, size: str, corners: int) -> None:
    count = len(size.split(","))
    body = f"""g (float[{theta}] theta) => (float grid) <int64[{count}] size = {{{size}}}> {{
        grid = AffineGrid<align_corners = {corners}>(theta, size)
    }}"""
    file = write(tmp_path, body, opset=20)
    loaded = from_onnx(file)
    assert "matmul" in ops(loaded)
    check_against_runtime(file, loaded)


def test_affine_grid_of_an_unknown_size_is_refused_by_its_own_name(tmp_path: Path) -> None:
    body = "g (float[1,2,3] theta, int64[4] size) => (float grid) { grid = AffineGrid(theta, size) }"
    with pytest.raises(CompileError) as caught:
        from_onnx(write(tmp_path, body, opset=20))
    assert "AffineGrid its size depends on the model's inputs" in caught.value.why

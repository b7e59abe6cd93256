"""Results and operands of ONNX nodes go by their place: what is not read, omitted or stored shifts nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_onnx_importer import check_against_runtime, write

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.load.onnx_importer import from_onnx

SPLITS = {
    "given sizes, last": (17, "a, y = Split<axis = 1>(x, parts)"),
    "attribute, last": (11, "a, y = Split<axis = 1, split = [2, 4]>(x)"),
    "even, first": (13, "y, a = Split<axis = 1>(x)"),
    "even, last": (13, "a, y = Split<axis = 1>(x)"),
    "even, middle": (13, "a, y, b = Split<axis = 1>(x)"),
    "counted, middle": (18, "a, y, b = Split<axis = 1, num_outputs = 3>(x)"),
    "counted, a smaller one last": (18, "a, b, c, y = Split<axis = 2, num_outputs = 4>(x)"),
}


@pytest.mark.parametrize("form", SPLITS)
def test_parts_that_nobody_reads_keep_their_place(tmp_path: Path, form: str) -> None:
    opset, node = SPLITS[form]
    file = write(tmp_path, f"g (float[1,6,7] x) => (float y) {{ {node} }}", opset, parts=np.array([2, 4]))
    check_against_runtime(file, from_onnx(file))


def test_two_of_three_parts(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[6] x) => (float c, float a) { a, b, c = Split(x) }", 13)
    check_against_runtime(file, from_onnx(file))


def test_parts_keep_their_place_in_compiled_code(tmp_path: Path) -> None:
    body = "g (float[1,6,4] x) => (float y) { a, b = Split<axis = 1>(x, parts) y = Relu(b) }"
    file = write(tmp_path, body, parts=np.array([2, 4]))
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 6, 4)
    np.testing.assert_array_equal(lvc.load(lvc.compile(str(file), "O2"))(x), np.maximum(x[:, 2:], 0))


LATER_RESULTS = {
    "deviation": "a, b, y = LayerNormalization(x, w)",
    "deviation, mean omitted": "a, OMITTED, y = LayerNormalization(x, w)  z = Relu(a)",
    "mask": "a, y = Dropout(x)",
}


@pytest.mark.parametrize("form", LATER_RESULTS)
def test_later_results_alone(tmp_path: Path, form: str) -> None:
    file = write(tmp_path, f"g (float[2,5] x) => (float y) {{ {LATER_RESULTS[form]} }}", w=np.ones(5, np.float32))
    proto = onnx.load(file)
    proto.graph.node[0].output[:] = [name.replace("OMITTED", "") for name in proto.graph.node[0].output]
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL if form == "mask" else 1
    onnx.save(proto, file)
    check_against_runtime(file, from_onnx(file))


def test_a_result_that_the_dialect_has_not_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[1,1,4,4,4] x) => (int64 y) { a, y = MaxPool<kernel_shape = [2, 2, 2]>(x) }")
    with pytest.raises(CompileError, match="cannot be compiled") as caught:
        from_onnx(file)
    assert "MaxPool is asked for the places of its maxima" in caught.value.why


def test_more_parts_than_results_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[6] x) => (float a) { a, b = Split<num_outputs = 3>(x) }", 18)
    with pytest.raises(CompileError, match="Split cannot be read") as caught:
        from_onnx(file)
    assert "do not make 2 results out of 6" in caught.value.why


@pytest.mark.parametrize("opset", [7, 9])
def test_statistics_of_the_batch_are_refused_though_nobody_reads_them(tmp_path: Path, opset: int) -> None:
    """Before opset 14 the number of results says that a batch normalisation trains."""
    body = "g (float[4,3] x) => (float[4,3] y) { y, m, v, s, t = BatchNormalization(x, w, w, w, w) }"
    with pytest.raises(CompileError) as caught:
        from_onnx(write(tmp_path, body, opset, w=np.ones(3, np.float32)))
    assert "normalises by the statistics of its batch" in caught.value.why


def branching(results: str, then: str, otherwise: str) -> str:
    """A model that takes the first branch of a condition that is known; a branch is its results and its body."""
    names = ", ".join(value.split()[-1] for value in results.split(", "))
    return f"""g (float[4] x) => ({results}) {{
        one = Constant<value_int: int = 1>()
        yes = Cast<to = 9>(one)
        z = Add(x, w)
        {names} = If (yes) <then_branch = a () => {then}, else_branch = b () => {otherwise}>
    }}"""


BRANCHES = {
    "a name that hides a stored tensor": branching(
        "float[4] y", "(float[4] p) <float[1] w = {5}> { p = Mul(z, w) }", "(float[4] q) { q = Relu(x) }"
    ),
    "a later result alone": branching(
        "float[4] n, float[4] y",
        "(float[4] p, float[4] r) { p = Relu(x)  r = Exp(x) }",
        "(float[4] q, float[4] s) { q = Relu(x)  s = Neg(x) }",
    ).replace("=> (float[4] n, float[4] y)", "=> (float[4] y)"),
    "a result that only leaves its branch": branching(
        "float[4] y, bool[4] n",
        "(float[4] p, bool[4] m) { p, m = Dropout(x) }",
        "(float[4] q, bool[4] o) { q, o = Dropout(x) }",
    ),
}


@pytest.mark.parametrize("form", BRANCHES)
def test_results_and_names_of_branches(tmp_path: Path, form: str) -> None:
    file = write(tmp_path, BRANCHES[form], w=np.full(4, 2, np.float32))
    check_against_runtime(file, from_onnx(file))


def test_a_result_of_a_branch_hides_one_outside(tmp_path: Path) -> None:
    """ONNX Runtime refuses it, so the right value is computed here."""
    body = branching("float[4] y", "(float[4] p) { z = Exp(x)  p = Mul(z, w) }", "(float[4] q) { q = Relu(x) }")
    file = write(tmp_path, body, w=np.full(4, 2, np.float32))
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    np.testing.assert_allclose(from_onnx(file)(x)[0], 2 * np.exp(x), rtol=1e-6)


def test_a_branch_that_comes_before_what_it_reads(tmp_path: Path) -> None:
    body = """g (float[4] x) => (float[4] y) {
        one = Constant<value_int: int = 1>()
        yes = Cast<to = 9>(one)
        y = If (yes) <then_branch = a () => (float[4] p) { p = Exp(s)  s = Relu(r) },
                      else_branch = b () => (float[4] q) { q = Relu(r) }>
        r = Neg(x)
    }"""
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    np.testing.assert_allclose(from_onnx(write(tmp_path, body))(x)[0], np.exp(np.maximum(-x, 0)), rtol=1e-6)


OUTPUTS = {
    "a stored tensor": "g (float[2] x) => (float[2] y, float[4] w) { y = Relu(x) }",
    "a constant": "g (float[2] x) => (float[2] y, float c) { y = Relu(x)  c = Constant<value_float: float = 2.0>() }",
    "known while loading": "g (float[2] x) => (int64[1] s, float[2] y) { y = Relu(x)  s = Shape(x) }",
    "an input": "g (float[2] x) => (float[2] x, float[2] y) { y = Relu(x) }",
    "the same twice": "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x)  z = Identity(y) }",
    "one name twice": "g (float[2] x) => (float[2] y, float[2] y) { y = Relu(x) }",
    "read inside": "g (float[2] x) => (float[2] z, float[2] y) { y = Relu(x)  z = Exp(y) }",
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_outputs_that_are_no_plain_results(tmp_path: Path, form: str) -> None:
    file = write(tmp_path, OUTPUTS[form], w=np.arange(4, dtype=np.float32))
    check_against_runtime(file, from_onnx(file))

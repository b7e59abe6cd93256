"""Every operator of the dialect, written as ONNX and run in ONNX Runtime, gives what PyTorch gives."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lvc.backends.onnx import BACKEND
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.workspace import Workspace

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

IMAGE = "x: f32[1,4,7,8]"
ROWS = "x: f32[3,4,5]"
TWO = "x: f32[3,4,5], y: f32[4,1]"

UNARY = [
    *("relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "mish", "exp", "abs", "neg", "floor", "ceil"),
    *("round", "sign", "reciprocal", "erf", "sin", "cos", "tan", "atan", "sinh", "cosh", "asinh", "isnan", "isinf"),
]
BINARY = [
    *("add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"),
    *("logical_and", "logical_or", "logical_xor"),
]

# signature, weights, call
CASES: dict[str, tuple[str, str, str]] = {
    **{op: (ROWS, "", f"{op}(%x)") for op in UNARY},
    **{op: (TWO, "", f"{op}(%x, %y)") for op in BINARY},
    "logical_not": (ROWS, "", "logical_not(%x)"),
    "add a number": (ROWS, "", "add(%x, 2, alpha=0.5)"),
    "add integers": ("x: i64[3], y: f32[3]", "", "add(%x, %y)"),
    "add truth values": ("x: bool[3], y: bool[3]", "", "add(%x, %y)"),
    "divide integers": ("x: i64[3]", "", "div(%x, 2)"),
    "compare integers": ("x: i64[3]", "@h : f32[] = 0.5", "lt(%x, @h)"),
    "sigmoid of integers": ("x: i64[3]", "", "sigmoid(%x)"),
    "floor of integers": ("x: i64[3]", "", "floor(%x)"),
    "log": (ROWS, "", "log(%abs)"),
    "sqrt": (ROWS, "", "sqrt(%abs)"),
    "rsqrt": (ROWS, "", "rsqrt(%abs)"),
    "asin": (ROWS, "", "asin(%sin)"),
    "acos": (ROWS, "", "acos(%sin)"),
    "atanh": (ROWS, "", "atanh(%sin)"),
    "acosh": (ROWS, "", "acosh(%big)"),
    "pow": (ROWS, "@e : f32[] = 1.5", "pow(%abs, @e)"),
    "remainder": (TWO, "@d : f32[] = 0.7", "remainder(%x, @d)"),
    "remainder of integers": ("x: i64[4]", "@d : i64[4] = [3, -3, 2, -2]", "remainder(%x, @d)"),
    "fmod": (TWO, "@d : f32[] = 0.7", "fmod(%x, @d)"),
    "clamp": (ROWS, "", "clamp(%x, -0.5, 0.5)"),
    "clamp below": (ROWS, "", "clamp(%x, None, 0.5)"),
    "gelu": (ROWS, "", "gelu(%x)"),
    "gelu by tanh": (ROWS, "", 'gelu(%x, approximate="tanh")'),
    "softplus": (ROWS, "", "softplus(%x)"),
    "softplus beta": (ROWS, "", "softplus(%x, 2.0, 20)"),
    "elu": (ROWS, "", "elu(%x, 0.5)"),
    "selu": (ROWS, "", "elu(%x, 1.67, 1.05, 2.0)"),
    "leaky_relu": (ROWS, "", "leaky_relu(%x, 0.1)"),
    "prelu": (IMAGE, "@w : f32[4]", "prelu(%x, @w)"),
    "where": (TWO, "@c : bool[3,4,1]", "where(@c, %x, %y)"),
    "to": (ROWS, "", "to(%x, i32)"),
    "dropout": (ROWS, "", "dropout(%x, 0.5, False)"),
    "conv2d": (IMAGE, "@w : f32[6,2,3,3]\n@b : f32[6]", "conv2d(%x, @w, @b, [2, 1], [1, 0], [1, 2], 2)"),
    "conv_transpose2d": (
        IMAGE, "@w : f32[4,3,3,3]\n@b : f32[6]", "conv_transpose2d(%x, @w, @b, [2, 1], [1, 0], [1, 0], 2, [1, 2])"
    ),
    "linear": ("x: f32[3,4]", "@w : f32[5,4]\n@b : f32[5]", "linear(%x, @w, @b)"),
    "linear of rows": (ROWS, "@w : f32[2,5]\n@b : f32[2]", "linear(%x, @w, @b)"),
    "linear without bias": (ROWS, "@w : f32[2,5]", "linear(%x, @w)"),
    "matmul": (ROWS, "@w : f32[3,5,2]", "matmul(%x, @w)"),
    "reshape": (ROWS, "", "reshape(%x, [4, -1])"),
    "permute": (ROWS, "", "permute(%x, [2, 0, -2])"),
    "expand": ("x: f32[4,1]", "", "expand(%x, [3, -1, 5])"),
    "repeat": ("x: f32[4,1]", "", "repeat(%x, [2, 1, 3])"),
    "cat": (TWO, "@w : f32[3,2,5]", "cat([%x, @w], -2)"),
    "slice": (ROWS, "", "slice(%x, -1, -3, 9223372036854775807, 2)"),
    "roll": (ROWS, "", "roll(%x, [1, -2], [0, 2])"),
    "roll flat": (ROWS, "", "roll(%x, [7])"),
    "flip": (ROWS, "", "flip(%x, [0, 2])"),
    "constant_pad_nd": (IMAGE, "", "constant_pad_nd(%x, [1, 2, -1, 0], 0.5)"),
    "pad": (IMAGE, "", 'pad(%x, [1, 2, 3, 0], "reflect")'),
    "pad replicate": (IMAGE, "", 'pad(%x, [1, 2, 3, 0], "replicate")'),
    "pad circular": (IMAGE, "", 'pad(%x, [1, 2, 3, 0], "circular")'),
    "pad constant": (IMAGE, "", 'pad(%x, [1, 2], "constant", 1.5)'),
    "index_select": (ROWS, "@i : i64[3] = [1, 0, 3]", "index_select(%x, 1, @i)"),
    "gather": (ROWS, "@i : i64[3,2,5]", "gather(%x, 1, @i)"),
    "embedding": ("x: i64[2,3]", "@w : f32[5,4]", "embedding(@w, %x)"),
    "pixel_shuffle": (IMAGE, "", "pixel_shuffle(%x, 2)"),
    "pixel_shuffle of 3": ("x: f32[4,3,2]", "", "pixel_shuffle(%x, 2)"),
    "lvc.argsort": ("x: f32[3,4,5]", "", "lvc.argsort(%x, True)"),
    "lvc.argsort of truth values": ("x: bool[3,4]", "", "lvc.argsort(%x, False)"),
    "lvc.scatter": ("x: f32[3,5], u: f32[3,2]", "@i : i64[3,2]", 'lvc.scatter(%x, @i, %u, "none")'),
    "lvc.nms": ("x: f32[60,4], v: bool[60]", "", "lvc.nms(%x, %v, 0.1)"),
    "lvc.nms of two images": ("x: f32[2,30,4], v: bool[2,30]", "", "lvc.nms(%x, %v, 0.0)"),
    "lvc.nms in groups": (
        "x: f32[2,1,30,4], v: bool[2,1,30]", "@g : i64[2,1,30] = 3", "lvc.nms(%x, %v, 0.1, @g)"
    ),
    "lvc.roi_align": (
        "x: f32[2,3,8,9], y: f32[2,3,4,5]",
        "@r : f32[3,5] = [[0, 1, 1, 6, 5], [1, -2, 0, 9, 14], [0, 3, 3, 3, 3]]\n@l : i64[3] = [0, 1, 1]",
        "lvc.roi_align([%x, %y], @r, @l, [1.0, 0.5], [2, 3], 2, False)",
    ),
    "lvc.roi_align by size": (
        "x: f32[2,3,8,9], l: i64[2]",
        "@r : f32[2,5] = [[0, 1, 1, 6, 5], [1, 0, 0, 9, 7]]",
        "lvc.roi_align([%x], @r, %l, [0.5], [2, 2], 0, True)",
    ),
    "lvc.peaks": ("x: f32[3,4,5,6]", "@s : i64[3,2] = [[7, 5], [10, 12], [1, 9]]", "lvc.peaks(%x, @s)"),
    "lvc.scatter by sums": ("x: f32[3,5], u: f32[3,2]", "@i : i64[3,2]", 'lvc.scatter(%x, @i, %u, "sum")'),
    "pixel_unshuffle": ("x: f32[2,3,4,6]", "", "pixel_unshuffle(%x, 2)"),
    "max_pool2d": (IMAGE, "", "max_pool2d(%x, [3, 2], [2, 2], [1, 1])"),
    "max_pool2d ceil": (IMAGE, "", "max_pool2d(%x, [2, 3], [2, 2], [0, 1], [1, 1], True)"),
    "max_pool2d dilated": (IMAGE, "", "max_pool2d(%x, [3, 3], [2, 2], [1, 1], [2, 1], True)"),
    "avg_pool2d": (IMAGE, "", "avg_pool2d(%x, [3, 3], [2, 2], [1, 1])"),
    "avg_pool2d default stride": (IMAGE, "", "avg_pool2d(%x, [3, 2])"),
    "avg_pool2d without padding": (IMAGE, "", "avg_pool2d(%x, [3, 3], [2, 2], [1, 1], False, False)"),
    "avg_pool2d ceil": (IMAGE, "", "avg_pool2d(%x, [2, 3], [2, 2], [1, 1], True)"),
    "avg_pool2d ceil without padding": (IMAGE, "", "avg_pool2d(%x, [2, 3], [2, 2], [1, 1], True, False)"),
    "avg_pool2d divisor": (IMAGE, "", "avg_pool2d(%x, [2, 3], [2, 2], [1, 1], False, True, 5)"),
    "adaptive_avg_pool2d to one": (IMAGE, "", "adaptive_avg_pool2d(%x, [1, 1])"),
    "adaptive_avg_pool2d even": (IMAGE, "", "adaptive_avg_pool2d(%x, [7, 4])"),
    "adaptive_avg_pool2d uneven": (IMAGE, "", "adaptive_avg_pool2d(%x, [5, 3])"),
    "mean": (ROWS, "", "mean(%x, [0, -1], True)"),
    "mean of all": (ROWS, "", "mean(%x, None)"),
    "sum": (ROWS, "", "sum(%x, [1])"),
    "sum of truth values": ("x: bool[3,4]", "", "sum(%x, [1])"),
    "prod": (ROWS, "", "prod(%x, 1)"),
    "amax": (ROWS, "", "amax(%x, [1], True)"),
    "amin": (ROWS, "", "amin(%x, [-1, 0])"),
    "argmax": (ROWS, "", "argmax(%x, 1)"),
    "argmax of all": (ROWS, "", "argmax(%x)"),
    "argmin": (ROWS, "", "argmin(%x, -1, True)"),
    "cumsum": (ROWS, "", "cumsum(%x, 1)"),
    "linalg_vector_norm": (ROWS, "", "linalg_vector_norm(%x, 2, [1])"),
    "linalg_vector_norm 3": (ROWS, "", "linalg_vector_norm(%x, 3, [1], True)"),
    "linalg_vector_norm inf": (ROWS, "", "linalg_vector_norm(%x, inf)"),
    "linalg_vector_norm 0": (ROWS, "", "linalg_vector_norm(%x, 0, [0])"),
    "batch_norm": (
        IMAGE, "@w : f32[4]\n@m : f32[4]\n@var : f32[4]", "batch_norm(%x, @w, None, @m, @var, False, 0.1, 1e-3, False)"
    ),
    "layer_norm": (ROWS, "@w : f32[4,5]\n@b : f32[4,5]", "layer_norm(%x, [4, 5], @w, @b, 1e-3)"),
    "layer_norm plain": (ROWS, "", "layer_norm(%x, [5])"),
    "group_norm": (IMAGE, "@w : f32[4]\n@b : f32[4]", "group_norm(%x, 2, @w, @b)"),
    "instance_norm": (IMAGE, "@w : f32[4]", "instance_norm(%x, @w, None, None, None, True, 0.1, 1e-3, False)"),
    "instance_norm with statistics": (
        IMAGE, "@m : f32[4]\n@var : f32[4]", "instance_norm(%x, None, None, @m, @var, False, 0.1, 1e-3, False)"
    ),
    "softmax": (ROWS, "", "softmax(%x, 1)"),
    "log_softmax": (ROWS, "", "log_softmax(%x, -1)"),
    "upsample_nearest2d": (IMAGE, "", "upsample_nearest2d(%x, [10, 16], None)"),
    "upsample_nearest2d by factors": (IMAGE, "", "upsample_nearest2d(%x, None, [1.7, 2.0])"),
    "upsample_bilinear2d": (IMAGE, "", "upsample_bilinear2d(%x, [14, 3], False, None)"),
    "upsample_bilinear2d by factors": (IMAGE, "", "upsample_bilinear2d(%x, None, False, [1.7, 2.0])"),
    "upsample_bilinear2d corners": (IMAGE, "", "upsample_bilinear2d(%x, [10, 16], True, None)"),
    "upsample_bicubic2d": (IMAGE, "", "upsample_bicubic2d(%x, [14, 5], False, None)"),
    **{
        f"grid_sampler_2d {mode} {padding} {corners}": (
            "x: f32[2,3,5,7], g: f32[2,4,6,2]", "", f"grid_sampler_2d(%x, %g, {mode}, {padding}, {corners})"
        )
        for mode in range(3) for padding in range(3) for corners in (False, True)
    },
    "fake_quantize_per_tensor_affine": (ROWS, "", "fake_quantize_per_tensor_affine(%x, 0.0625, 3, 0, 255)"),
    "fake_quantize_per_tensor_affine narrow": (ROWS, "", "fake_quantize_per_tensor_affine(%x, 0.125, 0, -7, 7)"),
    "fake_quantize_per_channel_affine": (
        ROWS, "@s : f32[4] = 0.125\n@z : i32[4]", "fake_quantize_per_channel_affine(%x, @s, @z, 1, -127, 127)"
    ),
    "fake_quantize_per_channel_affine of a weight": (
        ROWS,
        "@w : f32[4,5]\n@s : f32[4] = 0.125\n@z : i32[4] = 0",
        "fake_quantize_per_channel_affine(@w, @s, @z, 0, -127, 127)",
    ),
}  # fmt: skip


def build_case(name: str) -> Model:
    signature, weights, call = CASES[name]
    before = {"abs": "abs(%x)", "sin": "sin(%x)", "big": "add(%a, 1.0)"}
    lines = [f"model case({signature})", *weights.splitlines()]
    if "%big" in call:
        lines.append("%a = abs(%x)")
    lines += [f"%{key} = {text}" for key, text in before.items() if f"%{key}" in call]
    return parse_model("\n".join([*lines, f"%result = {call}", "return out=%result"]))


def run_as_onnx(model: Model, target: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    parsed = Target.parse(target)
    artefact = BACKEND.build(model, parsed, Workspace())
    proto = onnx.load_from_string(artefact.files["model.onnx"])
    onnx.checker.check_model(proto, full_check=True)
    inputs = seeded_inputs(model.inputs, 0)
    return list(BACKEND.load(artefact, threads=1)(*inputs)), list(model(*inputs))


def test_every_operator_has_a_case() -> None:
    used = {node.target for name in CASES for node in build_case(name).module.graph.nodes if node.op == "call_function"}
    whole = {overload for overload in OPS if overload.namespace == "lvc"}
    assert {op.name for overload, op in OPS.items() if overload not in used | whole} == set()


def test_integer_operators_are_refused() -> None:
    text = "model m(q: u8[1,4])\n%x = lvc.dequantise(%q, 0.5, 0)\nreturn out=%x"
    with pytest.raises(CompileError, match=r"lvc\.dequantise .* cannot be written as ONNX") as caught:
        BACKEND.build(parse_model(text), Target.parse("onnx"), Workspace())
    assert "lower-to-integer" in caught.value.why


@pytest.mark.parametrize("target", ["onnx-17", "onnx"])
@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, target: str) -> None:
    if "circular" in name and target == "onnx-17":
        with pytest.raises(CompileError, match="cannot be written as ONNX"):
            run_as_onnx(build_case(name), target)
        return
    found, wanted = run_as_onnx(build_case(name), target)
    assert found[0].dtype == wanted[0].dtype
    assert relative_difference(found[0], wanted[0]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_operator_is_read_again(name: str, tmp_path: Path) -> None:
    """The importer knows what the writer makes of every operator of the dialect."""
    model = build_case(name)
    file = tmp_path / "model.onnx"
    file.write_bytes(BACKEND.build(model, Target.parse("onnx"), Workspace()).files["model.onnx"])
    inputs = seeded_inputs(model.inputs, 0)
    (found,), (wanted,) = from_onnx(file)(*inputs), model(*inputs)
    assert found.dtype == wanted.dtype
    assert relative_difference(found, wanted) < 1e-5


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.5])
def test_boxes_that_onnx_runtime_keeps(threshold: float) -> None:
    """Real boxes, some of them equal, empty or with corners in the wrong order, in groups of any numbers or in none."""
    text = f"""
        model boxes(x: f32[2,80,4], v: bool[2,80], g: i64[2,80])
        %a = lvc.nms(%x, %v, {threshold})
        %b = lvc.nms(%x, %v, {threshold}, %g)
        return a=%a, b=%b
    """
    model, random = parse_model(textwrap.dedent(text)), np.random.default_rng(0)
    corners = random.random((2, 80, 2, 2)).astype(np.float32) * 3
    boxes = np.concatenate([corners.min(2), corners.max(2)], -1)
    boxes[0, 5], boxes[1, 4, 2:] = boxes[0, 2], boxes[1, 4, :2]
    boxes[:, ::7, [0, 2]] = boxes[:, ::7, [2, 0]]
    inputs = boxes, random.random((2, 80)) < 0.9, random.integers(-(2**40), 2**40, 3)[random.integers(0, 3, (2, 80))]
    artefact = BACKEND.build(model, Target.parse("onnx"), Workspace())
    wanted = model(*inputs)
    for found, right in zip(BACKEND.load(artefact, threads=1)(*inputs), wanted, strict=True):
        np.testing.assert_array_equal(found, right)
    assert wanted[0].sum() <= wanted[1].sum() <= inputs[1].sum()


@pytest.mark.parametrize(
    ("signature", "call", "why"),
    [
        ("x: f64[9,4], v: bool[9]", "lvc.nms(%x, %v, 0.5)", "float64"),
        ("x: f32[9,4], v: bool[9]", "lvc.nms(%x, %v, -0.5)", "-0.5"),
        ("x: f32[9000,4], v: bool[9000], g: i64[9000]", "lvc.nms(%x, %v, 0.5, %g)", "9000 boxes"),
    ],
)
def test_boxes_that_onnx_would_compare_otherwise_are_refused(signature: str, call: str, why: str) -> None:
    model = parse_model(f"model m({signature})\n%y = {call}\nreturn out=%y")
    with pytest.raises(CompileError, match=r"lvc\.nms .* cannot be written as ONNX") as caught:
        BACKEND.build(model, Target.parse("onnx"), Workspace())
    assert why in caught.value.why


def test_names_are_kept() -> None:
    model = parse_model("""
        model small(image: f32[1,3,4,4])
          @conv.weight : f32[2,3,1,1]
          %conv = conv2d(%image, @conv.weight)
          %act = silu(%conv)
          return logits=%act, again=%act, input=%image, weight=@conv.weight
    """)
    artefact = BACKEND.build(model, Target.parse("onnx"), Workspace())
    graph = onnx.load_from_string(artefact.files["model.onnx"]).graph
    assert [value.name for value in graph.output] == ["logits", "again", "input", "weight"]
    assert [tensor.name for tensor in graph.initializer] == ["conv.weight"]
    assert {"conv", "act"} <= {node.name for node in graph.node}
    found, wanted = run_as_onnx(model, "onnx")
    assert all(relative_difference(a, b) < 1e-6 for a, b in zip(found, wanted, strict=True))


def test_an_output_name_that_another_value_has() -> None:
    model = parse_model("""
        model small(x: f32[2])
          %relu = relu(%x)
          %neg = neg(%relu)
          return relu=%neg
    """)
    found, wanted = run_as_onnx(model, "onnx")
    np.testing.assert_array_equal(found[0], wanted[0])


def test_same_model_same_bytes() -> None:
    target = Target.parse("onnx")
    first, second = (BACKEND.build(build_case("conv2d"), target, Workspace()).files for _ in range(2))
    assert first == second


def test_training_mode_is_refused() -> None:
    model = parse_model("""
        model small(x: f32[2])
          %drop = dropout(%x, 0.5, True)
          return out=%drop
    """)
    with pytest.raises(CompileError, match=re.escape("dropout at 'drop' cannot be written as ONNX")):
        BACKEND.build(model, Target.parse("onnx"), Workspace())


def test_weights_of_a_quantised_model_are_whole_numbers() -> None:
    model = build_case("fake_quantize_per_channel_affine of a weight")
    artefact = BACKEND.build(model, Target.parse("onnx"), Workspace())
    graph = onnx.load_from_string(artefact.files["model.onnx"]).graph
    assert [node.op_type for node in graph.node] == ["DequantizeLinear"]
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert stored[graph.node[0].input[0]] == onnx.TensorProto.INT8
    assert set(stored) == set(graph.node[0].input)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_factors_that_leave_a_size_as_it_is_or_double_it(mode: str) -> None:
    """PyTorch sets factors aside there, and lays pixels by sizes."""
    smooth = "" if mode == "nearest" else "False, "
    calls = "".join(
        f"  %y{i} = upsample_{mode}2d(%x, None, {smooth}{factors}) : f32[1,2,{height},{width}]\n"
        for i, (factors, height, width) in enumerate(
            [("[1.25, 1.2]", 3, 4), ("[2.1, 1.2]", 6, 4), ("[1.7, 2.1]", 5, 8)]
        )
    )
    model = parse_model(f"model resized(x: f32[1,2,3,4])\n{calls}  return a=%y0, b=%y1, c=%y2\n")
    found, wanted = run_as_onnx(model, "onnx")
    assert all(relative_difference(ours, theirs) <= 1e-5 for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("shape", ["2,3,4,1", "1,2,9,3"])
def test_windows_of_padding_alone_are_minus_infinity(shape: str) -> None:
    """With a dilation of 2 and padding of 1 the only window of an image one wide holds nothing of it."""
    call = "max_pool2d(%x, [2, 2], [3, 2], [0, 1], [1, 2], True)"
    model = parse_model(f"model pool(x: f32[{shape}])\n%y = {call}\nreturn out=%y")
    wanted, found = run_as_onnx(model, "onnx")
    np.testing.assert_array_equal(found[0], wanted[0])
    assert np.isinf(found[0]).all() == shape.endswith("1")

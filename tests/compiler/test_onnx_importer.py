"""The ONNX importer: names, shapes, folding, refusals, and the same numbers as ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, op_name, origin
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.load.onnx_importer.problems import Problem, summary
from lvc.compiler.pipeline.observers import relative_difference

onnxruntime = pytest.importorskip("onnxruntime")


def write(folder: Path, body: str, opset: int = 17, **stored: np.ndarray) -> Path:
    """Write a model given in ONNX's own text, with stored tensors; return the file."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "my.own": 1]> {body}')
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    file = folder / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    return file


def ops(model: Model) -> list[str]:
    return [op_name(node) for node in calls(model.module.graph)]


def check_against_runtime(file: Path, model: Model, scale: float = 1.0) -> None:
    """Compare with ONNX Runtime on seeded inputs, and verify."""
    verify(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    arrays = [(scale * array).astype(array.dtype) for array in seeded_inputs(model.inputs, 0)]
    wanted = session.run(None, dict(zip([value.name for value in session.get_inputs()], arrays, strict=True)))
    assert model.output_names == tuple(value.name for value in session.get_outputs())
    for found, expected in zip(model(*arrays), wanted, strict=True):
        assert found.dtype == expected.dtype
        assert relative_difference(found, expected) < 1e-4


def test_names_and_origins_are_kept(tmp_path: Path) -> None:
    body = "g (float[1,3,8,8] input) => (float[1,4,6,6] scores) { [/stem/conv] scores = Conv(input, stem.conv.weight) }"
    weight = np.ones((4, 3, 3, 3), np.float32)
    body = body.replace("[/stem/conv] ", "").replace("stem.conv.weight", "w")
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {body}')
    proto.graph.node[0].name, proto.graph.node[0].input[1] = "/stem/conv", "stem.conv.weight"
    proto.graph.initializer.append(numpy_helper.from_array(weight, "stem.conv.weight"))
    file = tmp_path / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    model = from_onnx(file)
    node = next(calls(model.module.graph))
    assert (node.name, origin(node)) == ("stem_conv", "node /stem/conv (Conv)")
    assert [str(value) for value in (*model.inputs, *model.outputs)] == ["input: f32[1,3,8,8]", "scores: f32[1,4,6,6]"]
    assert dict(model.module.named_parameters()).keys() == {"stem.conv.weight"}
    assert model.copy().inputs == model.inputs


def test_symbolic_batch_becomes_one_and_is_noted(tmp_path: Path) -> None:
    model = from_onnx(write(tmp_path, "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"))
    assert model.inputs[0].spec.shape == (1, 3)
    assert "batch size 'N' was fixed to 1" in model.notes[0]


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_no_size_is_symbolic(tmp_path: Path, size: int) -> None:
    file = write(tmp_path, "g (float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Relu(x) }")
    proto = onnx.load(file)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(proto, file)
    model = from_onnx(file)
    assert model.inputs[0].spec.shape == (1, 3, 4, 4)
    assert model.notes == [f"input 'x': batch size '{size}' was fixed to 1"]


@pytest.mark.parametrize("key", ["image", "input", ""])
def test_shapes_fix_symbolic_sizes(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, "g (float[N,3,H,W] image) => (float[N,3,H,W] y) { y = Relu(image) }")
    assert from_onnx(file, {key: (2, 3, 5, 7)}).outputs[0].spec.shape == (2, 3, 5, 7)
    with pytest.raises(CompileError, match="not fixed") as caught:
        from_onnx(file)
    assert "--shape image=1x3x224x224" in caught.value.help


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[N,3,H,W] image) => (float[N,3,H,W] y) { y = Relu(image) }")
    with pytest.raises(UsageError, match="no input 'imgae'") as caught:
        from_onnx(file, {"imgae": (1, 3, 4, 4)})
    assert "did you mean 'image'" in caught.value.help
    with pytest.raises(UsageError, match="does not fit"):
        from_onnx(file, {"image": (1, 4, 4, 4)})


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    body = """g (float[N,3,4,H] x) => (float[N,M] y) {
        shape = Shape(x)
        zero = Constant<value_int: int = 0>()
        batch = Gather<axis = 0>(shape, zero)
        one = Constant<value_ints: ints = [0]>()
        rows = Unsqueeze(batch, one)
        rest = Constant<value_ints: ints = [-1]>()
        wanted = Concat<axis = 0>(rows, rest)
        flat = Reshape(x, wanted)
        half = Constant<value_float: float = 0.5>()
        y = Mul(flat, half)
    }"""
    file = write(tmp_path, body)
    model = from_onnx(file, {"x": (2, 3, 4, 5)})
    assert ops(model) == ["reshape", "mul"]
    assert next(calls(model.module.graph, aten.mul.Tensor)).args[1] == 0.5
    check_against_runtime(file, model)


def test_inputs_that_are_stored_are_no_inputs(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32))
    assert [value.name for value in from_onnx(file).inputs] == ["x"]


def test_an_input_can_be_frozen(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[2,3] x, int64[1] shape) => (float[6] y) { y = Reshape(x, shape) }")
    with pytest.raises(CompileError) as caught:
        from_onnx(file)
    assert "y: Reshape its shape depends on the model's inputs" in caught.value.why
    model = from_onnx(file, constants={"shape": np.array([6])})
    assert [str(value) for value in model.outputs] == ["y: f32[6]"]


def test_every_node_that_cannot_be_compiled_is_listed(tmp_path: Path) -> None:
    body = """g (float[4] x) => (float[N] places, float[4] z) {
        places = Unique(x)
        a = my.own.Sparkle(x)
        b = Relu(a)
        z = Det(b)
    }"""
    with pytest.raises(CompileError, match="3 node") as caught:
        from_onnx(write(tmp_path, body))
    assert "places: Unique makes a result whose shape depends on the data" in caught.value.why
    assert "a: my.own.Sparkle is a custom operator" in caught.value.why
    assert "z: Det has no converter" in caught.value.why


def test_refusals_of_one_kind_share_a_line(tmp_path: Path) -> None:
    """A detector may have hundreds of nodes behind one that depends on the data."""
    nodes = " ".join(f"p{i} = Unique(x)  q{i} = my.own.Sparkle(x)" for i in range(100))
    outputs = ", ".join(f"float p{i}, float q{i}" for i in range(100))
    body = f"g (float[4] x) => ({outputs}, float z) {{ {nodes} z = Det(x) }}"
    with pytest.raises(CompileError, match="201 node") as caught:
        from_onnx(write(tmp_path, body))
    assert caught.value.why.splitlines() == [
        "p0, p1, p2 and 97 more: Unique makes a result whose shape depends on the data",
        "q0, q1, q2 and 97 more: my.own.Sparkle is a custom operator",
        "z: Det has no converter",
    ]


def test_refusals_of_many_kinds_end() -> None:
    problems = [Problem(f"n{i}", f"Op{i % 40}", "has no converter") for i in range(60)]
    lines = summary(problems)
    assert len(lines) == 16
    assert lines[0] == "n0, n40: Op0 has no converter"
    assert lines[-1].startswith("and 30 more, of Op15, Op16")


def test_a_matrix_product_with_a_bias_is_a_linear_layer(tmp_path: Path) -> None:
    body = "g (float[2,5,3] x) => (float[2,5,4] y) { a = MatMul(x, w)  y = Add(b, a) }"
    random = np.random.default_rng(0)
    stored = {"w": random.standard_normal((3, 4)).astype(np.float32), "b": np.ones(4, np.float32)}
    file = write(tmp_path, body, **stored)
    model = from_onnx(file)
    assert ops(model) == ["linear"]
    check_against_runtime(file, model)


def test_a_matrix_product_that_is_read_twice_is_made_once(tmp_path: Path) -> None:
    body = "g (float[2,3] x) => (float[2,3] y, float[2,3] a) { a = MatMul(x, w)  y = Add(a, b) }"
    file = write(tmp_path, body, w=np.eye(3, dtype=np.float32), b=np.ones(3, np.float32))
    assert ops(from_onnx(file)) == ["linear", "add"]


def test_statistics_are_not_trained_and_weights_are(tmp_path: Path) -> None:
    body = "g (float[2,3,4,4] x) => (float[2,3,4,4] y) { y = BatchNormalization(x, gamma, beta, mean, var) }"
    stored = {name: np.full(3, 0.5 + i, np.float32) for i, name in enumerate(["gamma", "beta", "mean", "var"])}
    file = write(tmp_path, body, opset=15, **stored)
    model = from_onnx(file)
    assert dict(model.module.named_parameters()).keys() == {"gamma", "beta"}
    assert dict(model.module.named_buffers()).keys() == {"mean", "var"}
    check_against_runtime(file, model)


def test_a_known_condition_takes_its_branch(tmp_path: Path) -> None:
    body = """g (float[2,3] x) => (float[N] y) {
        rank = Size(x)
        six = Constant<value_int: int = 6>()
        is_six = Equal(rank, six)
        y = If (is_six) <
            then_branch = a () => (float[2,3] p) { p = Relu(x) },
            else_branch = b () => (float[2,3] q) { q = Neg(x) }
        >
    }"""
    assert ops(from_onnx(write(tmp_path, body))) == ["relu"]


def test_functions_of_the_model_are_expanded(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "my.own": 1]>
        g (float[2] x) => (float[2] y) { y = my.own.twice(x) }
        <domain: "my.own", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert ops(from_onnx(file)) == ["add"]


def test_nodes_in_disorder_are_sorted(tmp_path: Path) -> None:
    file = write(tmp_path, "g (float[2] x) => (float[2] z) { y = Relu(x)  z = Neg(y) }")
    proto = onnx.load(str(file))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    file.write_bytes(proto.SerializeToString())
    assert ops(from_onnx(file)) == ["relu", "neg"]


def test_quantised_convolution_becomes_fake_quantisation(tmp_path: Path) -> None:
    body = """g (float[1,2,6,6] x) => (float[1,4,4,4] y) {
        q = QuantizeLinear(x, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        wd = DequantizeLinear<axis = 0>(weight, weight_scale, weight_zero)
        bd = DequantizeLinear(bias, bias_scale)
        y = Conv(d, wd, bd)
    }"""
    random = np.random.default_rng(0)
    stored = {
        "scale": np.float32(0.02),
        "zero": np.uint8(128),
        "weight": random.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8),
        "weight_scale": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
        "weight_zero": np.zeros(4, np.int8),
        "bias": np.arange(4, dtype=np.int32),
        "bias_scale": np.float32(0.1),
    }
    file = write(tmp_path, body, **{name: np.asarray(value) for name, value in stored.items()})
    model = from_onnx(file)
    assert ops(model) == ["fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine", "conv2d"]
    assert "weight" in dict(model.module.named_parameters())
    check_against_runtime(file, model)


OLD_FORMS = {
    "Slice": (9, "y = Slice<axes = [1, 2], starts = [1, -3], ends = [3, 2147483647]>(x)"),
    "Upsample 7": (7, 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    "Upsample 9": (9, 'y = Upsample<mode = "linear">(x, s)'),
    "Resize 10": (10, 'y = Resize<mode = "nearest">(x, s)'),
    "Softmax": (11, "y = Softmax<axis = 1>(x)"),
    "LogSoftmax": (7, "y = LogSoftmax<axis = 2>(x)"),
    "Clip": (7, "y = Clip<min = -0.5, max = 0.25>(x)"),
    "Pad": (9, 'y = Pad<mode = "reflect", pads = [0, 0, 1, 2, 0, 0, 2, 1]>(x)'),
    "Split": (11, "y, z = Split<axis = 1, split = [1, 3]>(x)"),
    "Squeeze": (11, "a = Unsqueeze<axes = [0, 5]>(x)  y = Squeeze<axes = [0]>(a)"),
    "ReduceSum": (11, "y = ReduceSum<axes = [1, -1], keepdims = 0>(x)"),
    "Dropout": (7, "y = Dropout<ratio = 0.3>(x)"),
    "Mean": (8, "y = Mean(x, x, x)"),
    "AveragePool": (7, "y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 1, 1]>(x)"),
    "LRN": (7, "y = LRN<size = 3, alpha = 0.01, beta = 0.6, bias = 1.5>(x)"),
    "DepthToSpace": (9, "y = DepthToSpace<blocksize = 2>(x)"),
    "Flatten": (7, "y = Flatten<axis = 2>(x)"),
    "Gemm": (7, "a = Flatten(x)  y = Gemm<transB = 1, alpha = 0.5>(a, m, v)"),
}


@pytest.mark.parametrize("form", OLD_FORMS)
def test_old_forms_of_operators(tmp_path: Path, form: str) -> None:
    opset, nodes = OLD_FORMS[form]
    stored: dict[str, np.ndarray] = {}
    if "(x, s)" in nodes:
        stored = {"s": np.array([1, 1, 2, 3], np.float32)}
    elif "Gemm" in nodes:
        stored = {"m": np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100), "v": np.ones(3, np.float32)}
    size = "4,6" if form == "DepthToSpace" else "5,5"
    file = write(tmp_path, f"g (float[2,4,{size}] x) => (float y) {{ {nodes} }}", opset, **stored)
    check_against_runtime(file, from_onnx(file))


def test_constants_are_stored_once(tmp_path: Path) -> None:
    body = "g (float[3,3] x) => (float[3,3] z) { y = MatMul(x, x)  a = Mul(y, w)  z = Add(a, w) }"
    model = from_onnx(write(tmp_path, body, w=np.eye(3, dtype=np.float32)))
    assert [node.target for node in model.module.graph.nodes if node.op == "get_attr"] == ["w"]


@pytest.mark.parametrize("name", ["mnist_cntk", "yunet_n_320", "yolox_nano"])
def test_trained_models_match_onnx_runtime(assets: Path, name: str) -> None:
    torch.set_num_threads(1)
    file = assets / "onnx" / f"{name}.onnx"
    check_against_runtime(file, from_onnx(file), scale=128.0)


SPELT_OUT = {
    "silu": "g = Sigmoid(x)  y = Mul(x, g)",
    "hardswish": "g = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)  y = Mul(g, x)",
    "mish": "s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)",
    "gelu": "a = Div(x, sqrt2)  e = Erf(a)  f = Add(e, one)  m = Mul(x, f)  y = Mul(m, half)",
    "hardsigmoid": "a = Add(x, three)  c = Clip(a, zero, six)  y = Div(c, six)",
    "layer_norm": """
        m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)  q = Pow(d, two)  v = ReduceMean<axes = [-1]>(q)
        e = Add(v, small)  r = Sqrt(e)  n = Div(d, r)  w = Mul(n, weight)  y = Add(w, bias)""",
}


@pytest.mark.parametrize("operator", SPELT_OUT)
def test_operators_in_parts_are_put_together(tmp_path: Path, operator: str) -> None:
    numbers = {"sqrt2": 2**0.5, "one": 1, "half": 0.5, "three": 3, "zero": 0, "six": 6, "two": 2, "small": 1e-5}
    stored = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    stored |= {"weight": np.linspace(1, 2, 4, dtype=np.float32), "bias": np.ones(4, np.float32)}
    file = write(tmp_path, f"g (float[2,3,4] x) => (float[2,3,4] y) {{ {SPELT_OUT[operator]} }}", **stored)
    model = from_onnx(file)
    assert ops(model) == [operator]
    check_against_runtime(file, model)


def test_parts_that_are_read_elsewhere_stay(tmp_path: Path) -> None:
    body = "g (float[4] x) => (float[4] y, float[4] g) { g = Sigmoid(x)  y = Mul(x, g) }"
    file = write(tmp_path, body)
    model = from_onnx(file)
    assert sorted(ops(model)) == ["sigmoid", "silu"]
    check_against_runtime(file, model)


def test_weights_train_and_constants_do_not(tmp_path: Path) -> None:
    """An input's mean and a table of positions are no weights; a bias of one number, and one in an Add, are."""
    body = """
        agraph (float[1,3,8,8] x) => (float[1,6,2] y) {
          centred = Sub(x, mean)
          c = Conv(centred, kernel, shift)
          r = Reshape(c, rows)
          m = MatMul(r, matrix)
          b = Add(m, added)
          y = Add(b, positions)
        }
    """
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {body}')
    stored = {
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "kernel": np.ones((1, 3, 3, 3), np.float32),
        "shift": np.ones(1, np.float32),
        "matrix": np.ones((6, 2), np.float32),
        "added": np.ones(2, np.float32),
        "positions": np.ones((1, 6, 2), np.float32),
        "rows": np.array([1, 6, 6]),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    onnx.save(proto, tmp_path / "m.onnx")
    module = from_onnx(tmp_path / "m.onnx").module
    assert {name for name, _ in module.named_parameters()} == {"kernel", "shift", "m.weight", "added"}
    assert {name for name, _ in module.named_buffers()} == {"mean", "positions"}

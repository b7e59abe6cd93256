"""ONNX files that are broken or made to do harm: one clear error each, never anything else."""

from __future__ import annotations

import gzip
import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.load.onnx_importer import from_onnx

WEIGHT = np.arange(4, dtype=np.float32)


def small() -> onnx.ModelProto:
    """y = Relu(x + w)."""
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { a = Add(x, w)  y = Relu(a) }'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    return proto


def save(folder: Path, proto: onnx.ModelProto) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    return file


def externally(proto: onnx.ModelProto, location: str, offset: int = 0, length: int = 16) -> onnx.ModelProto:
    """Say that the weight lies in another file."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"cannot read nothing\.onnx"):
        from_onnx(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, bytes(range(256)), b"\x00" * 64])
def test_bytes_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(CompileError, match=r"model.onnx is not an ONNX model") as caught:
        from_onnx(file)
    assert caught.value.why
    assert caught.value.help


def saved(weights: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


OTHERS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a page of HTML": b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "a zip archive, as the .pt and .pth files of PyTorch are": saved({"w": torch.ones(2)}),
    "a pickle": pickle.dumps({"w": [1, 2]}),
    "a file of safetensors": (64).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "a compressed file": gzip.compress(b"a model"),
    "a model of TensorFlow Lite": b"\x1c\x00\x00\x00TFL3" + b"\x00" * 40,
    "a file of XML": b'<?xml version="1.0"?>\n<net name="model" version="11"></net>',
    "a text": "wget: could not reach the server, größer nichts".encode(),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_files_are_told_by_their_bytes(tmp_path: Path, what: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(OTHERS[what])
    with pytest.raises(CompileError, match=r"model.onnx is not an ONNX model") as caught:
        from_onnx(file)
    assert caught.value.why.startswith(f"it is {what}")
    assert caught.value.help


def test_truncated_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(small().SerializeToString()[:-20])
    with pytest.raises(CompileError, match="is not an ONNX model"):
        from_onnx(file)


def duplicate(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "a"


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def nameless_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nobody"


def stored_twice(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(2 * WEIGHT, "w"))


def writes_stored(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Neg", ["x"], ["w"]))


def same_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(proto.graph.input[0])


def large_header(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 40]


def negative_header(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [-4]


def strange_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def old_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 5


def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


def lost_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "elsewhere"


def large_constant(proto: onnx.ModelProto) -> None:
    """The weight repeated a thousand million times."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1 << 30]), "times"))
    proto.graph.node.insert(0, helper.make_node("Tile", ["w", "times"], ["big"]))
    proto.graph.node[1].input[1] = "big"


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (duplicate, "two nodes of model.onnx write 'a'"),
        (cycle, "form a cycle"),
        (nameless_input, "not well formed"),
        (stored_twice, "two stored tensors of model.onnx are called 'w'"),
        (writes_stored, "writes 'w', an input or stored tensor"),
        (same_inputs, "two inputs of model.onnx are called 'x'"),
        (large_header, "'w' is broken"),
        (negative_header, "'w' is broken"),
        (strange_type, "'w' is broken"),
        (old_opset, "uses ONNX opset 5"),
        (no_opset, "does not say which ONNX opset"),
        (lost_output, "not well formed"),
        (large_constant, "Tile cannot be read"),
    ],
)
def test_damaged_models(tmp_path: Path, damage: Callable[[onnx.ModelProto], None], wanted: str) -> None:
    proto = small()
    damage(proto)
    with pytest.raises(CompileError, match=wanted) as caught:
        from_onnx(save(tmp_path, proto))
    assert "model.onnx" in caught.value.where


@pytest.mark.parametrize("places", [np.array([1, 3]), np.array([[1], [3]])])
def test_sparse_tensors(tmp_path: Path, places: np.ndarray) -> None:
    proto = small()
    del proto.graph.initializer[:]
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5, 7], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(places, "places"))
    file = save(tmp_path, proto)
    np.testing.assert_array_equal(from_onnx(file)(np.ones(4, np.float32))[0], [1, 6, 1, 8])
    sparse.dims[:] = [3]
    with pytest.raises(CompileError, match="'w' is broken"):
        from_onnx(save(tmp_path, proto))


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8 + WEIGHT.tobytes())
    model = from_onnx(save(tmp_path, externally(small(), "weights.bin", offset=8)))
    np.testing.assert_array_equal(model(np.ones(4, np.float32))[0], WEIGHT + 1)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link.bin", "sub/../../weights.bin", ""])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(CompileError, match="must lie in the model's folder"):
        from_onnx(save(inside, externally(small(), location)))


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    file = save(tmp_path, externally(small(), "weights.bin"))
    with pytest.raises(CompileError, match=r"cannot read the external data 'weights.bin'") as caught:
        from_onnx(file)
    assert "tensor 'w'" in caught.value.where
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes()[:-1])
    with pytest.raises(CompileError, match="does not hold the tensor"):
        from_onnx(file)


def test_graphs_nested_without_end(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for depth in range(20):
        node = helper.make_node("If", ["c"], ["y"], name=str(depth), then_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
    proto = small()
    proto.graph.node.extend(inner.node)
    with pytest.raises(CompileError, match="nests graphs"):
        from_onnx(save(tmp_path, proto))


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Change, drop or add a few bytes, mostly where the structure lies."""
    result = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4, 8])):
        place = dice.randrange(min(3000, len(result)))
        change = dice.random()
        if change < 0.6:
            result[place] = dice.randrange(256)
        elif change < 0.8:
            del result[place]
        else:
            result.insert(place, dice.randrange(256))
    return bytes(result)


def test_changed_bytes_never_end_in_anything_but_a_clear_error(assets: Path, tmp_path: Path) -> None:
    content = (assets / "onnx" / "mnist_cntk.onnx").read_bytes()
    file, errors = tmp_path / "model.onnx", []
    dice = random.Random(0)
    for _ in range(300):
        file.write_bytes(mutated(content, dice))
        try:
            from_onnx(file)
        except LvcError as error:
            errors.append(error)
    assert len(errors) > 150
    assert all(error.what and "model.onnx" in error.where + error.what for error in errors)

"""Loops by which torchvision pastes masks and finds points, as PyTorch exports them, against ONNX Runtime; and bodies
that differ from theirs in one place, which are refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from lvc.backends.onnx import BACKEND
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.pipeline.workspace import Workspace

roi_heads = pytest.importorskip("torchvision.models.detection.roi_heads")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's

COUNT, HEIGHT, WIDTH = 5, 20, 30


class Pasting(nn.Module):
    def forward(self, masks: Tensor, boxes: Tensor) -> Tensor:
        pasted: Tensor = roi_heads.paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH))
        return pasted


class Searching(nn.Module):
    def forward(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = roi_heads.heatmaps_to_keypoints(maps, boxes)
        return found


SHAPES = {Pasting: (COUNT, 1, 6, 6), Searching: (COUNT, 3, 6, 6)}


class Written(nn.Module):
    """The operator that lvc writes as a loop."""


WRITTEN = "model m(x: f32[5,3,6,6], s: i64[5,2])\n%p = lvc.peaks(%x, %s)\nreturn p=%p"


@cache
def exported(kind: type[nn.Module], folder: Path) -> onnx.ModelProto:
    if kind is Written:
        made = BACKEND.build(parse_model(WRITTEN), Target.parse("onnx"), Workspace()).files["model.onnx"]
        return onnx.load_from_string(made)
    file = folder / f"{kind.__name__}.onnx"
    given = torch.rand(SHAPES[kind]), torch.rand(COUNT, 4) * 9 + torch.tensor([0, 0, 9, 9])
    torch.onnx.export(kind(), given, str(file), dynamo=False, opset_version=17, input_names=["x", "boxes"])
    return onnx.load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loops")


def loaded(proto: onnx.ModelProto, folder: Path) -> object:
    file = folder / "loaded.onnx"
    onnx.save(proto, file)
    return from_onnx(file)


@pytest.mark.parametrize("kind", SHAPES)
def test_what_exported_loops_give(kind: type[nn.Module], folder: Path) -> None:
    proto = exported(kind, folder)
    model = loaded(proto, folder)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])

    @settings(max_examples=20)
    @given(st.integers(0, 1 << 20))
    def check(seed: int) -> None:
        random = np.random.default_rng(seed)
        x = random.normal(size=SHAPES[kind]).astype(np.float32)
        start = random.uniform(-4, 20, (COUNT, 2)) * [1.3, 0.8]
        boxes = np.concatenate([start, start + random.uniform(0.0, 14, (COUNT, 2)) ** 1.2], 1).astype(np.float32)
        wanted = session.run(None, {"x": x, "boxes": boxes})
        found = model(x, boxes)  # type: ignore[operator]
        assert [part.shape for part in found] == [part.shape for part in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

    check()


def mutants(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model with its loop's body changed at one node: another number, attribute, order of operands or operator."""
    place = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "Loop")

    def body(made: onnx.ModelProto) -> onnx.GraphProto:
        return next(a.g for a in made.graph.node[place].attribute if a.name == "body")

    for number, node in enumerate(body(proto).node):
        made = copy.deepcopy(proto)
        changed = body(made).node[number]
        if node.op_type == "Constant" and not node.output[0].startswith("cond"):
            value = numpy_helper.to_array(changed.attribute[0].t)
            changed.attribute[0].t.CopyFrom(numpy_helper.from_array(np.asarray(value - 1, value.dtype)))
            yield f"{node.name} one less", made
        elif node.op_type in ("Sub", "Div", "Mod", "Gather", "Concat") and len(set(node.input)) > 1:
            changed.input[:] = [*node.input[1:], node.input[0]]
            yield f"{node.name} turned around", made
        elif node.op_type in ("Add", "Mul"):
            changed.op_type = "Max"
            yield f"{node.name} as a maximum", made
        elif node.op_type in ("ReduceMax", "ReduceMin"):
            changed.op_type = {"ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax"}[node.op_type]
            yield f"{node.name} the other one", made
        elif node.op_type == "Resize":
            for attribute in range(len(node.attribute)):
                another = copy.deepcopy(made)
                wrong = body(another).node[number].attribute[attribute]
                if wrong.name == "cubic_coeff_a":
                    wrong.f = -0.5
                else:
                    wrong.s = {b"half_pixel": b"asymmetric", b"floor": b"ceil"}.get(wrong.s, b"nearest")
                yield f"{node.name} {wrong.name}", another


@pytest.mark.parametrize("kind", [*SHAPES, Written])
def test_bodies_that_differ_are_not_taken_for_them(kind: type[nn.Module], folder: Path) -> None:
    names = []
    for name, proto in mutants(exported(kind, folder)):
        names.append(name)
        with pytest.raises(CompileError):
            loaded(proto, folder)
    assert len(names) > (10 if kind is Written else 60)


def test_what_begins_otherwise_is_not_taken_for_it(folder: Path) -> None:
    """An image of another size than the body's, or as many turns as there are no masks."""
    proto = copy.deepcopy(exported(Pasting, folder))
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    begins = next(node for node in proto.graph.node if loop.input[2] in node.output)
    begins.attribute[0].t.CopyFrom(numpy_helper.from_array(np.zeros((0, HEIGHT, WIDTH + 1), np.float32)))
    with pytest.raises(CompileError):
        loaded(proto, folder)
    proto = copy.deepcopy(exported(Pasting, folder))
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    proto.graph.initializer.append(numpy_helper.from_array(np.array(COUNT - 1), "fewer"))
    loop.input[0] = "fewer"
    with pytest.raises(CompileError):
        loaded(proto, folder)

"""One artefact for several shapes: what it computes for any number of images, what it shares, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_models import shades
from torch import nn

import lvc
from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.driver import compile_and_report
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.signature import Signature, Value
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load import from_module
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.serving import Batches

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.scores, self.norm = nn.Linear(32, 5), nn.BatchNorm2d(32)

    def forward(self, x):
        features = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.scores(features.mean((2, 3))), features

def make():
    return Net().eval()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("source") / "nets.py"
    file.write_text(SOURCE)
    return f"{file}:make"


@pytest.fixture(scope="module")
def model(source: str) -> Model:
    return lvc.load_model(source, shapes={"": (1, 3, 16, 16)})


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def check(loaded: lvc.Loaded, model: Model, x: np.ndarray) -> None:
    """The outputs for some images are those of each image alone in PyTorch."""
    found = loaded(x)
    alone = [model(x[place : place + 1]) for place in range(len(x))]
    for ours, theirs in zip(found, map(np.concatenate, zip(*alone, strict=True)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def loaded(model: Model) -> lvc.Loaded:
    return lvc.load(lvc.compile(model, batches=(3, 8)))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 16, 18, 30])
def test_any_number_of_images_is_served(loaded: lvc.Loaded, model: Model, count: int) -> None:
    assert loaded.batch_sizes == (1, 3, 8)
    check(loaded, model, images(count, 3, 16, 16))


def test_fewer_images_than_the_smallest_are_filled_up(model: Model) -> None:
    loaded = lvc.load(lvc.compile(model.with_batch(4), batches=(6,), verify=False))
    for count in (1, 3, 4, 5, 6, 7, 11):
        check(loaded, model, images(count, 3, 16, 16))


def test_weights_are_there_once_and_each_variant_is_as_if_built_alone(model: Model) -> None:
    alone = [lvc.compile(model.with_batch(count), verify=False) for count in (1, 8)]
    both = lvc.compile(model, batches=(8,), verify=False)
    assert len(both.files["weights.bin"]) == max(len(one.files["weights.bin"]) for one in alone)
    for one, count in zip(alone, (1, 8), strict=True):
        x = images(count, 3, 16, 16)
        for ours, theirs in zip(lvc.load(both)(x), lvc.load(one)(x), strict=True):
            assert np.array_equal(ours, theirs)
    assert [told["alone"] for told in both.metadata["variants"]] == [0, 0]


def test_variants_are_emulated(model: Model) -> None:
    try:
        loaded = lvc.load(lvc.compile(model, target="aarch64", batches=(3,), verify=False), emulate=True)
    except CompileError as error:
        pytest.skip(error.what)
    check(loaded, model, images(4, 3, 16, 16))


def test_integers_have_variants_too(model: Model) -> None:
    calibration = images(16, 3, 16, 16)
    workspace = Workspace(data={"calib": lambda: [(image[None], None) for image in calibration]}, threads=1)
    artefact = lvc.compile(model, "int8", workspace=workspace, batches=(4,))
    one, loaded = lvc.load(lvc.compile(model, "int8", workspace=workspace)), lvc.load(artefact)
    x = images(6, 3, 16, 16)
    alone = [one(x[place : place + 1]) for place in range(6)]
    for ours, theirs in zip(loaded(x), map(np.concatenate, zip(*alone, strict=True)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_other_sizes_of_images_are_variants(source: str, tmp_path: Path) -> None:
    request = LoadRequest(source, shapes={"": (1, 3, 16, 16)})
    shapes = [(4, 3, 16, 16), (1, 3, 24, 20), (2, 3, 24, 20), (5, 3, 8, 8)]
    artefact, report = compile_and_report(request, variants=[{"x": shape} for shape in shapes])
    assert list(report.variants) == ["4x3x16x16", "1x3x24x20", "2x3x24x20", "5x3x8x8"]
    assert not any(found.skipped for found in report.variants.values())
    container.write(artefact, tmp_path / "net.lvc")
    loaded = lvc.load(tmp_path / "net.lvc")
    assert loaded.artefact.variants == artefact.variants
    for count, height, width in [(1, 16, 16), (6, 16, 16), (3, 24, 20), (5, 8, 8)]:
        check(loaded, lvc.load_model(source, shapes={"": (1, 3, height, width)}), images(count, 3, height, width))
    with pytest.raises(UsageError, match=r"must be f32\[1,3,16,16\], not f32\[1,3,8,8\]") as error:
        loaded(images(1, 3, 8, 8))
    assert "5x3x8x8" in error.value.why


def open_onnx(net: nn.Sequential) -> onnx.ModelProto:
    """The network with a batch, a height and a width that are left open."""
    conv, scores = net[0], net[4]
    weights = {"w": conv.weight, "b": conv.bias, "s": scores.weight, "t": scores.bias}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "s", "t"], ["y"], transB=1),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, "h", "w"]), ("y", ["n", 5]))
    )
    stored = [onnx.numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "net", [x], [y], stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_open_sizes_of_files_are_given_in_several_shapes(tmp_path: Path) -> None:
    net, example = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(2, 3, 16, 16)
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]).eval()
    sizes = {0: torch.export.Dim("n", max=8), 2: torch.export.Dim("h", min=8, max=64), 3: torch.export.Dim("w", min=8)}
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=(sizes,)), tmp_path / "net.pt2")
    onnx.save(open_onnx(net), tmp_path / "net.onnx")
    for name, key in (("net.pt2", ""), ("net.onnx", "x")):
        request = LoadRequest(str(tmp_path / name), shapes={key: (1, 3, 16, 16)})
        variants = [{key: (4, 3, 16, 16)}, {key: (1, 3, 32, 24)}]
        found = lvc.load(compile_and_report(request, variants=variants)[0])
        for x in (images(6, 3, 16, 16), images(1, 3, 32, 24)):
            wanted = net(torch.from_numpy(x)).detach().numpy()
            np.testing.assert_allclose(found(x), wanted, rtol=1e-4, atol=1e-5)
    exported = LoadRequest(str(tmp_path / "net.pt2"), shapes={"": (1, 3, 16, 16)})
    with pytest.raises(LvcError, match="65"):
        compile_and_report(exported, variants=[{"": (1, 3, 65, 24)}])


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("variants", "pipeline", "target", "says"),
    [
        ([(1, 3, 16, 16)], "O2", "native", "the shape 1x3x16x16 is there twice"),
        ([(2, 3, 16, 16), (2, 3, 16, 16)], "O2", "native", "the shape 2x3x16x16 is there twice"),
        ([(2, 3, 16, 16)], "O2", "onnx", "several shapes cannot be built into one file"),
        ([(2, 3, 16, 16)], "O2", "reference", "several shapes cannot be built into one file"),
        ([(2, 3, 16, 16)], "O2", "cuda:sm_80", "several shapes cannot be built into one file"),
        ([(1, 3, 32, 32)], "O2,quantise-weights", "native", "in more than the number of images"),
    ],
)
def test_what_cannot_be_is_refused(
    source: str, variants: list[tuple[int, ...]], pipeline: str, target: str, says: str
) -> None:
    request = LoadRequest(source, shapes={"": (1, 3, 16, 16)})
    with pytest.raises(UsageError, match=says):
        compile_and_report(request, pipeline, target, variants=[{"": shape} for shape in variants])


def test_images_that_mix_have_no_variants() -> None:
    mixing = from_module(Mean(), torch.zeros(2, 3, 4, 4))
    with pytest.raises(CompileError, match="cannot be built for 4 images at once as well") as error:
        lvc.compile(mixing, batches=(4,))
    assert error.value.why
    with pytest.raises(UsageError, match="no input 'y'"):
        compile_and_report(mixing, variants=[{"y": (1, 3, 4, 4)}])
    with pytest.raises(UsageError, match="cannot be loaded for 2x3x8x8"):
        compile_and_report(mixing, variants=[{"x": (2, 3, 8, 8)}])


def test_a_lie_about_variants_is_found(model: Model, tmp_path: Path) -> None:
    artefact = lvc.compile(model, batches=(2,), verify=False)
    (other,) = artefact.variants
    wide = Signature(
        tuple(Value(v.name, TensorSpec((3, *v.spec.shape[1:]), "f32")) for v in other.inputs), other.outputs
    )
    renamed = Signature(tuple(Value("y", value.spec) for value in other.inputs), other.outputs)
    for lie in ((), (wide,), (other, other)):
        with pytest.raises(CompileError, match="the artefact is damaged"):
            lvc.load(lvc.Artefact(**{**vars(artefact), "variants": lie}))
    container.write(lvc.Artefact(**{**vars(artefact), "variants": (renamed,)}), tmp_path / "lie.lvc")
    with pytest.raises(CompileError, match="not a sound lvc artefact") as error:
        container.read(tmp_path / "lie.lvc")
    assert "a variant has other inputs than the model" in error.value.why


@given(st.sets(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 60))
def test_pieces_hold_all_images_and_compute_few(sizes: set[int], count: int) -> None:
    values = tuple(sorted(sizes))
    signature = Signature((Value("x", TensorSpec((values[0], 2), "f32")),), ())
    pieces = Batches(signature, values).pieces(count)
    assert set(pieces) <= sizes
    assert sum(pieces[:-1]) < count <= sum(pieces)
    assert pieces == sorted(pieces, reverse=True)
    left = count % values[-1]
    assert sum(pieces) - count < values[0] or not left
    if 1 in sizes:
        assert sum(pieces) == count


@given(st.sets(st.integers(1, 6), min_size=2, max_size=3), st.integers(1, 20))
def test_pieces_are_put_together_in_order(sizes: set[int], count: int) -> None:
    values = tuple(sorted(sizes))
    signatures = [
        Signature((Value("x", TensorSpec((size, 2), "f32")),), (Value("y", TensorSpec((3 * size,), "f32")),))
        for size in sizes
    ]
    (batches,) = Batches.of(signatures)
    assert batches.sizes == values

    def run(x: np.ndarray) -> tuple[np.ndarray, ...]:
        assert len(x) in sizes
        return (np.repeat(x[:, 1], 3),)

    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    (found,) = batches.run(run, [x])
    assert np.array_equal(found, np.repeat(x[:, 1], 3))


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_command_builds_and_runs_them(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "net.lvc")
    assert main(["compile", source, "--shape", "1x3x16x16", "--batch", "2,5", "-o", file]) == 0
    assert "as built for 5x3x16x16: " in capsys.readouterr().out
    assert main(["inspect", file]) == 0
    told = capsys.readouterr().out
    assert "2x3x16x16" in told
    assert "5x3x16x16" in told
    assert "other numbers of images than 2 and 5 run in pieces, the last filled with zeros" in told
    assert main(["inspect", file, "--json"]) == 0
    assert result(capsys)["variants"][0]["inputs"] == [{"name": "x", "spec": "f32[5,3,16,16]"}]
    np.save(tmp_path / "x.npy", images(7, 3, 16, 16))
    assert main(["run", file, str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz"), "--json"]) == 0
    assert result(capsys)["results"][0]["outputs"][0]["spec"] == "f32[7,5]"
    loaded = lvc.load(file)
    with np.load(tmp_path / "y.npz") as found:
        for name, wanted in zip(found, loaded(images(7, 3, 16, 16)), strict=True):
            assert np.array_equal(found[name], wanted)


def test_a_folder_is_run_in_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shades()
    model.preprocessing = "resize=8x8,range=255"
    container.write(lvc.compile(model, batches=(4,), verify=False), tmp_path / "net.lvc")
    (tmp_path / "pictures").mkdir()
    for shade in range(6):
        Image.fromarray(np.full((9, 9, 3), shade, np.uint8)).save(tmp_path / "pictures" / f"{shade}.png")
    arguments = ["run", str(tmp_path / "net.lvc"), str(tmp_path / "pictures"), "-o", str(tmp_path / "y.npz"), "--json"]
    assert main(arguments) == 0
    results = result(capsys)["results"]
    assert [item["top"][0]["index"] for item in results] == list(range(6))
    with np.load(tmp_path / "y.npz") as found:
        assert [array.shape for array in found.values()] == [(6, 6)]
    (tmp_path / "empty").mkdir()
    assert main(["run", str(tmp_path / "net.lvc"), str(tmp_path / "empty")]) == 2
    assert "there are no images in" in capsys.readouterr().err


def test_it_is_judged_in_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    container.write(lvc.compile(shades(), batches=(4,), verify=False), tmp_path / "net.lvc")
    y = np.arange(7) % 6
    np.savez(tmp_path / "data.npz", x=np.broadcast_to(y[:, None, None, None], (7, 3, 8, 8)).astype(np.float32), y=y)
    assert main(["eval", str(tmp_path / "net.lvc"), "--data", str(tmp_path / "data.npz"), "--json"]) == 0
    found = result(capsys)
    assert (found["images"], found["top1"]) == (7, 1.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compile", "--batch", "1,x"], "'1,x' is no list of numbers from 1"),
        (["compile", "--batch", "0"], "'0' is no list of numbers from 1"),
        (["compile", "--batch", "1", "--shape", "1x3x16x16", "--shape", "2x3x16x16"], "do not go together"),
        (["compile", "--shape", "x=1x3x16x16", "--shape", "x=2x3x16x16", "--shape", "y=1"], "no input 'y'"),
        (["compile", "--batch", "1,1", "--shape", "1x3x16x16"], "is there twice"),
        (
            ["compile", *(part for text in ("x=1", "x=2", "x=3", "y=1", "y=2") for part in ("--shape", text))],
            "input 'y' has 2 shapes, and another one 3",
        ),
        (["opt", "--shape", "1x3x16x16", "--shape", "2x3x16x16"], "is loaded in one shape here"),
    ],
)
def test_misuse_is_told(
    source: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, *rest = arguments
    output = ["-o", str(tmp_path / "net.lvc")] if command == "compile" else []
    try:
        code = main([command, source, *rest, *output])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

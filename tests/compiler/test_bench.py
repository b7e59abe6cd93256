"""Timing in turns, engines as plug-in files, and the command. No test asserts a time."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import build, convolutions, shades

import lvc
from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.bench.comparison import Contestant, compare
from lvc.compiler.bench.engine import Engine, Original, Run, engine_names, find_engine, prepare
from lvc.compiler.bench.source import stored_request
from lvc.compiler.bench.steps import steps
from lvc.compiler.cli import main
from lvc.compiler.errors import UsageError
from lvc.compiler.load import from_module
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.device import ThisMachine
from lvc.compiler.measure.layers import Layer
from lvc.compiler.measure.timing import FEWEST_ROUNDS, WARM_UP_RUNS, Timing, interleave
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.workspace import Silence
from lvc.compiler.writing import write_model


def recorders(count: int) -> tuple[list[int], list[Callable[[], object]]]:
    order: list[int] = []
    return order, [lambda place=place: order.append(place) for place in range(count)]  # type: ignore[misc]


def test_every_round_gives_each_engine_one_untimed_and_one_timed_run() -> None:
    order, runs = recorders(3)
    timings = interleave(runs, repeats=4)
    measured = order[3 * WARM_UP_RUNS :]
    assert [len(timing.samples) for timing in timings] == [4, 4, 4]
    assert measured[0::2] == measured[1::2]
    assert measured[0::2] == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


def test_it_ends_when_the_seconds_are_over() -> None:
    _, runs = recorders(1)
    assert len(interleave(runs, seconds=0)[0].samples) == FEWEST_ROUNDS
    assert len(interleave(runs, seconds=0.05)[0].samples) > FEWEST_ROUNDS


def test_processor_time_leaves_out_sleep() -> None:
    (timing,) = interleave([lambda: time.sleep(0.02)], repeats=2, clock="cpu")
    assert timing.best < 0.02


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads")
def test_an_engine_that_pins_the_thread_does_not_harm_the_next() -> None:
    allowed = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    def pin() -> None:
        os.sched_setaffinity(0, {min(allowed)})

    try:
        interleave([pin, lambda: seen.append(os.sched_getaffinity(0))], repeats=2)
        assert seen[WARM_UP_RUNS::2] == [allowed] * 2
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads")
def test_an_engine_that_pins_the_thread_when_it_is_prepared_leaves_lvc_all_cores(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)

    class Pinning(Engine):
        name = package = "pinning"

        def prepare(self, original: Original, threads: int) -> Run:
            os.sched_setaffinity(0, {min(allowed)})
            return lambda *inputs: inputs

    prepare(Pinning(), Original(LoadRequest("none.onnx"), tmp_path), 1)
    assert os.sched_getaffinity(0) == allowed


def test_statistics() -> None:
    timing = Timing((4.0, 1.0, 2.0, 3.0, 5.0))
    assert (timing.best, timing.median, timing.p90) == (1.0, 3.0, pytest.approx(4.6))


def test_comparison_tells_ratio_and_difference() -> None:
    base = Contestant("base", "1", lambda x: (x,))
    double = Contestant("double", "2", lambda x: (2 * x,))
    wrong = Contestant("wrong", "3", lambda x: (x, x))
    rows = compare(
        [base, double, wrong], (np.ones(4),), ThisMachine(), seconds=0, repeats=1, clock="wall", progress=Silence()
    )
    assert [row.difference for row in rows] == [0.0, 1.0, float("inf")]
    assert rows[0].ratio == 1
    assert rows[1].ratio == rows[1].timing.best / rows[0].timing.best


def layer(node: str, macs: int, origin: str = "") -> Layer:
    return Layer(node, "conv2d", origin, "f32[1]", 0, macs, 0, 0)


def test_kernels_are_told_by_the_user_s_names() -> None:
    layers = [
        layer("conv2d", 9, "features.0"),
        layer("relu", 0, "features.1"),
        layer("Conv_4", 9, "node /a/Conv_4 (Conv)"),
    ]
    times = [("conv2d", ["conv2d", "relu"], 1.0), ("relu to NCHW16c", ["relu"], 1.0), ("Conv_4", ["Conv_4"], 1.0)]
    assert [step.title for step in steps([*times, ("output 0", [], 1.0)], layers)] == [
        "features.0",
        "features.1 to NCHW16c",
        "/a/Conv_4",
        "output 0",
    ]


def test_shares_and_arithmetic_of_kernels() -> None:
    found = steps([("conv_1", ("conv_1", "relu_1"), 0.003), ("copy", ("cat_1",), 0.001)], [layer("conv_1", 6_000_000)])
    assert [step.share for step in found] == [0.75, 0.25]
    assert [step.macs for step in found] == [6_000_000, 0]
    assert found[0].flops == pytest.approx(4e9)
    assert found[1].to_json()["flops"] == 0
    moved = steps([("conv_1", ("conv_1",), 0.003), ("output 0", ("conv_1",), 0.001)], [layer("conv_1", 6_000_000)])
    assert [step.macs for step in moved] == [6_000_000, 0]


def test_engines_are_the_files_of_their_folder() -> None:
    onnx = ["onnxruntime", "onnxruntime_cuda", "onnxruntime_int8", "onnxruntime_tensorrt", "onnxruntime_tensorrt_fp16"]
    intel = ["openvino", "openvino_default", "openvino_int8"]
    pytorch = ["torch", *(f"torch{how}_cuda{fp16}" for how in ("_compile", "") for fp16 in ("", "_fp16"))]
    assert engine_names() == sorted([*onnx, *intel, "torch_compile", *pytorch])
    assert all(find_engine(name).name == name for name in engine_names())
    assert find_engine("torch-compile-cuda").name == "torch_compile_cuda"
    with pytest.raises(UsageError, match="there is no engine") as caught:
        find_engine("onnxrutime")
    assert "did you mean 'onnxruntime'" in caught.value.help


SLOW = pytest.param("torch_compile", marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino_default", "torch", SLOW])
def test_engines_compute_what_the_model_computes(name: str, tmp_path: Path) -> None:
    engine = find_engine(name)
    pytest.importorskip(engine.package)
    path = tmp_path / "model.onnx"
    model = convolutions()
    write_model(model, path)
    inputs = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    found = engine.prepare(Original(LoadRequest(str(path)), tmp_path), 1)(inputs)
    for ours, theirs in zip(found, model(inputs), strict=True):
        assert relative_difference(ours, theirs) < (BFLOAT16_BOUND if in_bfloat16(name) else 1e-5)
    assert engine.version()[0].isdigit()


@pytest.mark.parametrize("name", ["torch_cuda", "torch_compile_cuda", "torch_cuda_fp16", "torch_compile_cuda_fp16"])
def test_engines_for_gpus_say_that_there_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match=f"{name} cannot run this model") as caught:
        prepare(find_engine(name), Original(LoadRequest("torchvision.models:resnet18"), tmp_path), 1)
    assert caught.value.why == "PyTorch finds no GPU"


@pytest.mark.parametrize("name", ["torch_cuda", "torch_cuda_fp16"])
def test_engines_for_gpus_compute_what_the_model_computes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the processor in the place of the GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    model = convolutions()
    write_model(model, tmp_path / "model.onnx")
    inputs = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    found = find_engine(name).prepare(Original(LoadRequest(str(tmp_path / "model.onnx")), tmp_path), 1)(inputs)
    for ours, theirs in zip(found, model(inputs), strict=True):
        assert ours.dtype == np.float32
        difference = relative_difference(ours, theirs)
        assert 1e-5 < difference < 2**-8 if name.endswith("fp16") else difference < 1e-5


@pytest.mark.filterwarnings("ignore:Specified provider")  # what ONNX Runtime says of it
@pytest.mark.parametrize("name", ["onnxruntime_cuda", "onnxruntime_tensorrt", "onnxruntime_tensorrt_fp16"])
def test_onnx_runtime_without_a_provider_says_so(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    engine = find_engine(name)
    if engine.provider in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    write_model(convolutions(), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=f"{name} cannot run this model") as caught:
        prepare(engine, Original(LoadRequest(str(tmp_path / "model.onnx")), tmp_path), 1)
    assert engine.provider in caught.value.why


BFLOAT16_BOUND = 2**-6  # two layers, each of operands rounded to 8 bits


def in_bfloat16(name: str) -> bool:
    """Whether an engine computes in bfloat16 here, which OpenVINO does by itself where the processor has it."""
    if name != "openvino_default":
        return False
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.filterwarnings("ignore")  # quantisers use what their libraries have deprecated
@pytest.mark.parametrize("name", ["onnxruntime_int8", pytest.param("openvino_int8", marks=pytest.mark.slow)])
def test_engines_in_8_bits_are_near_the_model_and_are_made_once(name: str, tmp_path: Path) -> None:
    engine = find_engine(name)
    pytest.importorskip(engine.package)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, groups=8))
    write_model(from_module(layers, torch.zeros(1, 4, 16, 16)), tmp_path / "given.onnx")
    original = Original(LoadRequest(str(tmp_path / "given.onnx")), tmp_path)
    inputs = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    found = engine.prepare(original, 1)(inputs)
    differences = [relative_difference(*pair) for pair in zip(found, original.model(inputs), strict=True)]
    assert all(1e-5 < difference < 0.2 for difference in differences)
    made = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    engine.prepare(original, 1)
    assert made == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}


class Absent(Engine):
    name = "absent"
    package = "no-such-package-at-all"

    def prepare(self, original: Original, threads: int) -> Callable[..., tuple[np.ndarray, ...]]:
        raise ModuleNotFoundError("no module")


def test_kernels_get_their_shares_of_time_and_of_the_peak() -> None:
    slow, fast = steps([("a", ["x", "y"], 0.3), ("b", ["z"], 0.1)], [layer("x", 30), layer("z", 40)], peak=1000.0)
    assert (slow.macs, slow.flops, slow.peak_share) == (30, pytest.approx(200), pytest.approx(0.2))
    assert (fast.share, fast.peak_share) == (pytest.approx(0.25), pytest.approx(0.8))
    assert fast.to_json()["peak_share"] == fast.peak_share
    assert steps([("c", [], 0.0)], [])[0].peak_share == 0.0


class Timed:
    """An executable of kernels that take so long."""

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return inputs

    clock: object = None

    def time_steps(
        self, inputs: Sequence[np.ndarray], repeats: int, clock: Callable[[], float] = time.perf_counter
    ) -> list[tuple[str, list[str], float]]:
        Timed.clock = clock
        return [("first", ["linear"], 0.001), ("second", ["odd"], 0.003)]

    def peak_flops(self) -> float:
        return 2e9


@pytest.mark.parametrize(("clock", "wanted"), [("cpu", time.process_time), ("wall", time.perf_counter)])
def test_kernels_are_timed_by_the_clock_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, clock: str, wanted: object
) -> None:
    monkeypatch.setattr("lvc.backends.reference.ReferenceBackend.load", lambda *_: Timed())
    assert lvc_bench(capsys, str(folder / "a.lvc"), "--per-op", "--clock", clock)[0] == 0
    assert Timed.clock is wanted


@pytest.mark.parametrize(("sort", "wanted"), [("order", ["first", "second"]), ("time", ["second", "first"])])
def test_command_shows_kernels(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    wanted: list[str],
) -> None:
    monkeypatch.setattr("lvc.backends.reference.ReferenceBackend.load", lambda *_: Timed())
    code, out, err = lvc_bench(capsys, str(folder / "a.lvc"), "--per-op", "--sort", sort)
    assert code == 0, err
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("layer"))
    assert [line.split()[0] for line in lines[start + 1 :]] == [*wanted, "all"]
    assert "peak: 2.0 GFLOP/s" in err
    assert "more than 100 % of peak" not in err


def test_more_than_the_peak_is_explained(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = Layer("linear", "linear", "", "f32[1,6]", 6, 10**7, 24, 24)  # 20 GFLOP/s of 2
    monkeypatch.setattr("lvc.compiler.measure.artefact.artefact_layers", lambda _: [heavy])
    monkeypatch.setattr("lvc.backends.reference.ReferenceBackend.load", lambda *_: Timed())
    code, _, err = lvc_bench(capsys, str(folder / "a.lvc"), "--per-op")
    assert code == 0, err
    assert "more than 100 % of peak: MACs are those of the layer's definition" in err


class Failing(Absent):
    def prepare(self, original: Original, threads: int) -> Callable[..., tuple[np.ndarray, ...]]:
        raise RuntimeError("operator 7 is odd\nand more")


def test_a_missing_engine_says_how_to_get_it(tmp_path: Path) -> None:
    original = Original(LoadRequest("a.onnx"), tmp_path)
    for attempt in (lambda: prepare(Absent(), original, 1), lambda: Absent().version()):
        with pytest.raises(UsageError, match="absent is not installed") as caught:
            attempt()
        assert caught.value.help == "pip install no-such-package-at-all"
    with pytest.raises(UsageError, match="absent cannot run this model") as caught:
        prepare(Failing(), original, 1)
    assert caught.value.why == "operator 7 is odd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model, an artefact that names it as its source, and artefacts that do not fit or do not say."""
    folder = tmp_path_factory.mktemp("bench")
    model = convolutions()
    write_model(model, folder / "model.onnx")
    artefact = build(model, folder / "bare.lvc")
    source = {"source": str(folder / "model.onnx")}
    container.write(dataclasses.replace(artefact, metadata={"source": source}), folder / "a.lvc")
    moved = {"source": str(folder / "elsewhere.onnx")}
    container.write(dataclasses.replace(artefact, metadata={"source": moved}), folder / "moved.lvc")
    build(shades(), folder / "shades.lvc")
    return folder


def lvc_bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["bench", *arguments, "--repeats", "3"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_compares_artefact_and_engines(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, out, err = lvc_bench(
        capsys, str(folder / "a.lvc"), str(folder / "bare.lvc"), "--against", "onnxruntime,torch"
    )
    assert code == 0
    assert "1 thread; image: f32[1,4,16,16]" in out
    rows = [line.split() for line in out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["engine", "a", "bare", "onnxruntime", "torch"]
    assert "model.onnx, which the artefact was made of" in err


def test_command_prints_json(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    model = str(folder / "model.onnx")
    code, out, _ = lvc_bench(capsys, str(folder / "bare.lvc"), "--against", "torch", "--model", model, "--json")
    assert code == 0
    ours, torch = json.loads(out)["engines"]
    assert ours["runs"] == torch["runs"] == 3
    assert torch["ratio"] == torch["min"] / ours["min"]
    assert torch["difference"] < 1e-5
    assert ours["min"] <= ours["median"] <= ours["p90"]


def test_one_missing_engine_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lvc.compiler.bench.engines.openvino.ENGINE", Absent())
    code, out, err = lvc_bench(capsys, str(folder / "a.lvc"), "--against", "openvino,torch")
    assert code == 0
    assert "absent is not installed" in err
    assert "torch" in out
    code, out, err = lvc_bench(capsys, str(folder / "a.lvc"), "--against", "openvino")
    assert (code, out) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.lvc", "--against", "onnxrutime"), "did you mean 'onnxruntime'"),
        (("moved.lvc", "--against", "torch,onnxruntime"), "there is no file"),
        (("bare.lvc", "--against", "torch"), "does not say which model it was made of"),
        (("model.onnx",), "is not an artefact"),
        (("absent.lvc",), "cannot read"),
        (("a.lvc", "shades.lvc"), "takes other inputs"),
        (("a.lvc", "--per-op"), "cannot time its kernels"),
        (("a.lvc", "--threads", "0"), "not an integer from 1"),
    ],
)
def test_mistakes_end_in_one_error(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: Sequence[str], message: str
) -> None:
    paths = [str(folder / text) if "." in text else text for text in arguments]
    code, _, err = lvc_bench(capsys, *paths)
    assert code == 2
    assert message in err
    assert err.count("error:") == 1


@pytest.mark.parametrize(
    "source", [None, "text", {}, {"source": 3}, {"source": "a", "shapes": 4}, {"source": "a", "seed": "x"}]
)
def test_sources_of_odd_types_are_refused(source: object) -> None:
    artefact = Artefact("a", "reference", "reference", (), (), {}, {"source": source})
    with pytest.raises(UsageError, match="does not say which model"):
        stored_request(artefact)


def test_stored_source_is_the_request_that_made_it() -> None:
    request = LoadRequest("m:f", "w.pt", {"classes": 3}, {"x": (1, 2)}, 7)
    artefact = Artefact("a", "reference", "reference", (), (), {}, {"source": request.to_json()})
    assert stored_request(artefact) == request


class Few(torch.nn.Module):
    """The rows that begin with more than a half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x[:, 0] > 0.5]


def test_lists_of_engines_are_cut_to_their_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    onnx, artefact = tmp_path / "few.onnx", tmp_path / "few.lvc"
    write_model(from_module(Few(), torch.rand(50, 3)), onnx)
    assert main(["compile", str(onnx), "-o", str(artefact)]) == 0
    capsys.readouterr()
    code, out, _ = lvc_bench(capsys, str(artefact), "--against", "onnxruntime", "--repeats", "1", "--json")
    assert code == 0
    assert [row["difference"] for row in json.loads(out)["engines"]] == [0.0, 0.0]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One file for two numbers of images, of a factory."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "nets.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()\n"
    )
    shape = ["--shape", "1x3x8x8", "--batch", "1,3"]
    assert main(["compile", f"{folder / 'nets.py'}:make", *shape, "-o", str(folder / "v.lvc")]) == 0
    return str(folder / "v.lvc")


def test_every_shape_is_timed_and_named(capsys: pytest.CaptureFixture[str], variants: str) -> None:
    capsys.readouterr()
    code, out, err = lvc_bench(capsys, variants, "--against", "torch")
    assert code == 0, err
    assert [line for line in out.splitlines() if "f32[" in line][-1].endswith("f32[3,3,8,8]")
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("v ", "torch"))] == ["v", "torch"] * 2
    code, out, _ = lvc_bench(capsys, variants, "--against", "torch", "--json")
    told = json.loads(out)
    assert [one["inputs"][0].split(": ")[1] for one in told["shapes"]] == ["f32[1,3,8,8]", "f32[3,3,8,8]"]
    assert all(one["engines"][1]["difference"] < 1e-5 for one in told["shapes"])
    code, out, _ = lvc_bench(capsys, variants, "--shape", "3x3x8x8", "--json")
    told = json.loads(out)
    assert "shapes" not in told
    assert told["inputs"][0].endswith("f32[3,3,8,8]")
    assert lvc_bench(capsys, variants, "--shape", "3x3x8x8", "--shape", "1x3x8x8")[0] == 0
    code, _, err = lvc_bench(capsys, variants, "--shape", "2x3x8x8")
    assert code == 2
    assert "no artefact was built for 2x3x8x8" in err
    assert "1x3x8x8 and 3x3x8x8" in err
    code, _, err = lvc_bench(capsys, variants, "--shape", "3x3x8x8", "--per-op")
    assert code == 2
    assert "the kernels of that shape cannot be timed" in err


def test_pictures_are_put_in(capsys: pytest.CaptureFixture[str], variants: str, tmp_path: Path) -> None:
    from PIL import Image

    for place, size in enumerate([(9, 7), (30, 31), (8, 8)]):
        Image.new("RGB", size, (200, 10 * place, 0)).save(tmp_path / f"{place}.png")
    capsys.readouterr()
    prepare = ("--preprocess", "resize=8x8,range=1")
    code, out, err = lvc_bench(capsys, variants, "--data", str(tmp_path), *prepare)
    assert code == 0, err
    assert "f32[1,3,8,8], of 0.png" in out
    assert "f32[3,3,8,8], of 0.png, 1.png, 2.png" in out
    code, _, err = lvc_bench(capsys, variants, "--data", str(tmp_path))
    assert code == 2
    assert "nothing says how to prepare the images" in err
    code, _, err = lvc_bench(capsys, variants, "--data", str(tmp_path / "none.png"), *prepare)
    assert code == 2
    assert "none.png" in err


class Bright(torch.nn.Module):
    """The rows of a picture that are bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x[0].mean(0)
        return rows[rows.mean(1) > 0.7]


def test_empty_lists_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    artefact = tmp_path / "bright.lvc"
    model = from_module(Bright(), torch.rand(1, 3, 16, 16))
    container.write(lvc.compile(model), artefact)
    Image.new("RGB", (16, 16), (250, 250, 250)).save(tmp_path / "white.png")
    code, _, err = lvc_bench(capsys, str(artefact))
    assert code == 0
    assert "found nothing in these inputs" in err
    picture = ("--data", str(tmp_path / "white.png"), "--preprocess", "resize=16x16,range=1")
    code, out, err = lvc_bench(capsys, str(artefact), *picture)
    assert code == 0, err
    assert "of white.png" in out
    assert "found nothing" not in err

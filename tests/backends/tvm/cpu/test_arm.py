"""Code for ARM, run by emulation: floats as PyTorch has them, integers to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from device_servers import serving
from sketch import Sketch
from test_integer import check_exact, convolution, whole
from torch import nn

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.host import STAND_IN
from lvc.backends.tvm.cpu.kernels import matmul
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerPair, SignedQuad, TurnedQuad
from lvc.backends.tvm.cpu.kernels.matrix_operands import QuadMatrix
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.backends.tvm.lower import lower
from lvc.compiler import container
from lvc.compiler.backend import Place, Target
from lvc.compiler.cli import main
from lvc.compiler.driver import compile, compile_and_report
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.load import from_module
from lvc.compiler.loaded import load
from lvc.compiler.measure.latency import TargetStopwatch
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

TARGETS = pytest.mark.targets
PARTS = {"aarch64": IntegerPair, "aarch64+dotprod": SignedQuad, "aarch64+i8mm": QuadMatrix, "armv7": IntegerPair}
PARTS |= {"cortex-a55": TurnedQuad}


def need(text: str) -> None:
    """Skip where nothing builds or emulates a target's code."""
    target = Target.parse(text)
    if missing := BACKEND.missing(target):
        pytest.skip(missing.what)
    if BACKEND.place(target) is Place.ELSEWHERE:
        pytest.skip(f"nothing runs code for {text} here (Debian: apt-get install qemu-user-static)")


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + self.out(torch.softmax(q @ k.transpose(1, 2) * 0.2, -1) @ v)


class Floats(nn.Module):
    """A bit of everything that has a kernel of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 18, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.wide = nn.Sequential(nn.Conv2d(18, 36, 3, padding=1), nn.BatchNorm2d(36), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(36, 36, 5, 2, 2, groups=36), nn.Hardswish(), nn.Conv2d(36, 24, 1, groups=2))
        self.back = nn.ConvTranspose2d(24, 10, 4, 2, 1)
        self.attention, self.act, self.head = Attention(10), nn.GELU(), nn.Linear(10, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.wide(self.stem(x))
        y = self.back(self.deep(x))
        y = self.act(y) * nn.functional.interpolate(x, scale_factor=2.0)[:, :, ::2, ::2].mean(1, keepdim=True).tanh()
        tokens = self.attention(y.flatten(2).transpose(1, 2))
        return self.head(tokens.mean(1)), nn.functional.avg_pool2d(y, 3, 2).sigmoid()


@pytest.mark.parametrize(
    "target",
    ["aarch64", "cortex-a53", *(pytest.param(name, marks=TARGETS) for name in ("neoverse-n1", "neoverse-v1", "armv7"))],
)
def test_floats(target: str) -> None:
    need(target)
    torch.manual_seed(1)
    data = torch.randn(1, 3, 32, 40)
    network = Floats().eval()
    found = load(compile(from_module(network, data), "O2", target), threads=2, emulate=True)(data.numpy())
    for ours, wanted in zip(found, network(data), strict=True):
        wanted = wanted.detach().numpy()
        assert np.abs(ours - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("target", ["cortex-a53", pytest.param("neoverse-v1", marks=TARGETS)])
def test_minimal_filtering(target: str) -> None:
    """A 3x3 convolution by its points, with tiles that are cut at two edges."""
    need(target)
    torch.manual_seed(2)
    data, layer = torch.randn(1, 64, 21, 30), nn.Conv2d(64, 32, 3, padding=1)
    model = Pipeline.parse("O2").run(from_module(layer, data))[0]
    steps = lower(model, CpuCodeGenerator.of(Target.parse(target))).steps
    assert "Winograd" in {type(getattr(step.schedule, "problem", None)).__name__ for step in steps}
    found = load(compile(model, "", target), threads=2, emulate=True)(data.numpy())
    wanted = layer(data).detach().numpy()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def integers(zero: int) -> Model:
    """Layers of several shapes that begin with bytes, whose weights reach both ends."""
    sketch = Sketch()
    data = sketch.input(1, 21, 9, 10, dtype=torch.uint8)
    rows = sketch.input(5, 36, dtype=torch.uint8)
    made = [
        convolution(sketch, data, 30, zero=zero, seed=1),
        convolution(sketch, data, 18, zero=zero, seed=2, stride=2, groups=3, padding=2),
        convolution(sketch, data, 21, zero=zero, seed=3, groups=21),
        convolution(sketch, data, 40, zero=zero, seed=4, kernel=(1, 1), padding=0),
    ]
    weight = torch.from_numpy(whole(3, torch.int8, 11, 36))
    sums = sketch.call(integer.linear, rows, sketch.stored(weight), None, zero, group="linear")
    made.append(sketch.call(integer.rescale, sums, sketch.stored(torch.rand(11)), 1, group="linear"))
    left, right = sketch.input(2, 7, 19, dtype=torch.uint8), sketch.input(2, 19, 6, dtype=torch.int8)
    sums = sketch.call(integer.matmul, left, right, zero, -3, group="product")
    made.append(sketch.call(integer.rescale, sums, sketch.stored(torch.rand(1)), 0, group="product"))
    return sketch.model(*made)


@pytest.mark.parametrize("target", PARTS)
@pytest.mark.parametrize("zero", [0, *(pytest.param(zero, marks=TARGETS) for zero in (128, 255))])
def test_integers(zero: int, target: str) -> None:
    need(target)
    shapes = [(torch.uint8, 1, 21, 9, 10), (torch.uint8, 5, 36), (torch.uint8, 2, 7, 19), (torch.int8, 2, 19, 6)]
    check_exact(integers(zero), *(whole(zero + 1, *shape) for shape in shapes), target=target)


@pytest.mark.parametrize(
    ("target", "operand"), [*PARTS.items(), ("neoverse-v1", QuadMatrix), ("neoverse-n1", SignedQuad)]
)
def test_what_bytes_are_multiplied_by(target: str, operand: type) -> None:
    generator = CpuCodeGenerator.of(Target.parse(target))
    sketch = Sketch()
    data = sketch.input(1, 8, 6, 6, dtype=torch.uint8)
    program = lower(sketch.model(convolution(sketch, data, 8)), generator)
    (problem,) = [step.schedule.problem for step in program.steps if hasattr(step.schedule, "problem")]
    assert type(problem.operand) is operand


def test_parts_are_added_to_processors() -> None:
    assert Target.parse("cortex-a72+fp16+dotprod").features == {"neon", "fullfp16", "dotprod"}
    assert CpuCodeGenerator.of(Target.parse("cortex-a72+i8mm")).options["mattr"] == ["+i8mm"]
    assert "mattr" not in CpuCodeGenerator.of(Target.parse("cortex-a76")).options
    with pytest.raises(UsageError, match=r"takes no '\+avx2'") as caught:
        Target.parse("cortex-a72+avx2")
    assert "+dotprod" in caught.value.help
    with pytest.raises(UsageError, match=r"'x86-64-v3' takes no '\+dotprod'"):
        Target.parse("x86-64-v3+dotprod")


def test_the_emulated_processor_has_no_more_than_the_target() -> None:
    """Code with an instruction that a target lacks would die here as on the processor itself."""
    need("cortex-a76")
    sketch = Sketch()
    model = sketch.model(convolution(sketch, sketch.input(1, 8, 6, 6, dtype=torch.uint8), 8))
    artefact = compile(model, "O0", "cortex-a76", verify=False)
    plan = artefact.files["plan.json"].replace(b'"dotprod", "fullfp16", ', b"")
    assert plan != artefact.files["plan.json"]
    artefact.files["plan.json"] = plan
    run = load(artefact, threads=1, emulate=True)
    with pytest.raises(CompileError, match="the emulated model died") as caught:
        run(whole(0, torch.uint8, 1, 8, 6, 6))
    assert "an instruction that the emulated processor does not have" in caught.value.why


@TARGETS
def test_pairs_of_bfloat16() -> None:
    """What was built is compared with the rewritten graph in PyTorch, which has the same weights and activations."""
    need("aarch64+bf16")
    torch.manual_seed(1)
    pipeline = Pipeline.parse("O2").with_precision("bf16")
    _, report = compile_and_report(from_module(Floats().eval(), torch.randn(1, 3, 32, 40)), pipeline, "aarch64+bf16")
    assert report.built is not None
    assert report.built.emulated
    assert report.built.inputs


def test_emulated_code_has_no_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("aarch64")
    sketch = Sketch()
    model = sketch.model(sketch.call(torch.ops.aten.relu.default, sketch.input(2, 3)))
    artefact = compile(model, "O0", "aarch64", verify=False)
    container.write(artefact, tmp_path / "m.lvc")
    assert main(["bench", str(tmp_path / "m.lvc"), "--emulate"]) == 2
    assert capsys.readouterr().err.startswith("error: emulated code has no times")
    assert main(["run", str(tmp_path / "m.lvc"), "--emulate"]) == 0
    assert main(["run", str(tmp_path / "m.lvc")]) == 1
    err = capsys.readouterr().err
    assert "it is code for aarch64, and the processor is" in err
    assert "run it with --emulate" in err
    with pytest.raises(UsageError, match="no times"):
        load(artefact, emulate=True).executable.time_steps([])  # type: ignore[attr-defined]


def test_latency_is_not_measured_by_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    need("aarch64")
    monkeypatch.setenv(STAND_IN, "aarch64")
    sketch = Sketch()
    model = sketch.model(sketch.call(torch.ops.aten.relu.default, sketch.input(2, 3)))
    target = Target.parse("native")
    assert (target.cpu, BACKEND.place(target)) == ("aarch64", Place.EMULATED)
    assert load(compile(model, "O0", verify=False))(np.full((2, 3), -1, np.float32)).max() == 0
    with pytest.raises(UsageError, match="latency on native cannot be measured here"):
        TargetStopwatch(target, Workspace()).layers(model)


def test_a_board_that_emulates_computes_right_and_tells_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("aarch64")
    monkeypatch.chdir(tmp_path)
    model = from_module(Floats().eval(), torch.randn(1, 3, 32, 40))
    artefact = compile(model, "O2", "cortex-a72", verify=False)
    container.write(artefact, tmp_path / "m.lvc")
    data = np.random.default_rng(0).standard_normal((1, 3, 32, 40)).astype(np.float32)
    np.save("x.npy", data)
    with serving(tmp_path, "--emulate") as server, serving(tmp_path) as plain:
        device = ["--device", str(server.address), "--key-file", "board.key"]
        assert main(["run", "m.lvc", "x.npy", "-o", "out.npz", *device]) == 0
        assert "1 of 1 answers of the board were held against the same code, emulated here" in capsys.readouterr().err
        found = np.load("out.npz")
        for value, wanted in zip(artefact.outputs, model(data), strict=True):
            assert np.abs(found[value.name] - wanted).max() <= 1e-4 * np.abs(wanted).max()
        assert main(["bench", "m.lvc", *device]) == 1
        assert "error: emulated code has no times" in capsys.readouterr().err
        assert main(["run", "m.lvc", "x.npy", "--device", str(plain.address), *device[2:]]) == 1
        err = capsys.readouterr().err
        assert "error: the artefact was built for cortex-a72, and the board cannot run it" in err
        assert "it is code for aarch64, and the processor is" in err
        assert "compile with --target" in err


def test_wide_cores_use_each_word_of_bytes_for_many_vectors() -> None:
    """A word gets into all lanes once a cycle, in which a Neoverse V1 does four products of vectors."""
    operand = SignedQuad(3)
    problem = matmul.Matmul(197, 768, 192, 4, operand)
    narrow, wide = (
        matmul.choose_knobs(problem, vector_of(Target.parse(name))) for name in ("neoverse-n1", "neoverse-v1")
    )
    assert narrow.vectors >= 2
    assert wide.vectors == 4


@pytest.mark.parametrize("target", [name for name, cpu in CPUS.items() if cpu.kind != "x86-64"])
def test_tiles_leave_registers_to_llvm(target: str) -> None:
    vector = vector_of(Target.parse(target))
    most = 23 if vector.registers > 16 else 10
    for problem in (matmul.Matmul(197, 768, 192, 4), matmul.Matmul(1, 1000, 512, 4), matmul.Matmul(7, 64, 64, 4)):
        knobs = matmul.choose_knobs(problem, vector)
        assert knobs.vectors * knobs.rows <= most

"""Whole models in bfloat16: kernels against the rewritten graph in PyTorch, and what targets without it are told.

This machine may lack the instruction, so the models are built for it with the same steps in float32.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sketch import Sketch, numbers
from torch import nn

import lvc
from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.cpu.kernels import attention
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.program import Program
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError, CompileError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.verification.artefact import verify_artefact
from lvc.compiler.verification.examples import examples_of

aten = torch.ops.aten


class Convolutions(nn.Module):
    """Every kind of convolution, and what stands between them: pooling, gates, shuffles, joins, sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.BatchNorm2d(20), nn.Hardswish(), nn.MaxPool2d(3, 2, 1))
        self.depthwise = nn.Conv2d(20, 20, 5, padding=2, groups=20)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(20, 6, 1), nn.ReLU(), nn.Conv2d(6, 20, 1))
        self.grouped = nn.Conv2d(20, 24, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(24, 20, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(40, 13, 3, 2, 1, 1)
        self.head = nn.Linear(13, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = nn.functional.silu(self.depthwise(x))
        y = y * torch.sigmoid(self.gate(y)) + x
        z = nn.functional.channel_shuffle(self.grouped(y), 4)
        z = torch.cat([self.dilated(z), nn.functional.avg_pool2d(y, 3, 1, 1)], 1)
        z = nn.functional.interpolate(self.up(z), scale_factor=2.0, mode="bilinear")
        return self.head(z.mean((2, 3)))


class Attention(nn.Module):
    """A block of a vision transformer over an odd number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.norms = nn.ModuleList([nn.LayerNorm(32), nn.LayerNorm(32)])
        self.qkv = nn.Linear(32, 96)
        self.mlp = nn.Sequential(nn.Linear(32, 70), nn.GELU(), nn.Linear(70, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) * 0.35).softmax(-1)
        x = x + (scores @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.mlp(self.norms[1](x))
        return self.head(x[:, 0])


def native() -> Target:
    target = BACKEND.parse_target("native")
    assert target is not None
    return target


def traced(module: nn.Module, *shape: int) -> Model:
    torch.manual_seed(0)
    module.apply(lambda part: getattr(part, "reset_parameters", lambda: None)())
    return from_module(module.eval(), torch.randn(*shape))


def run(program: Program, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    files = build_files(program, CpuCodeGenerator.of(native()), native(), Workspace(threads=2)).files
    return CpuExecutable(files, 1)(*inputs)


@pytest.mark.parametrize(("module", "shape"), [(Convolutions(), (2, 3, 34, 30)), (Attention(), (1, 3, 16, 16))])
def test_a_model_computes_what_its_graph_says(
    module: nn.Module, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = traced(module, *shape)
    rewritten, steps = Pipeline.parse("O2").with_precision("bf16").run(model)
    inputs = seeded_inputs(model.inputs, 1)
    wanted, exact = rewritten(*inputs)[0], model(*inputs)[0]
    loss = relative_difference(wanted, exact)
    assert 1e-4 < loss < 3e-2
    program = lower(rewritten, CpuCodeGenerator.of(native()))
    found = run(program, *inputs)[0]
    assert relative_difference(found, wanted) <= loss  # values in the middle of two are rounded to either
    products = [step for step in program.steps if repr(BFLOAT16) in str(step.schedule)]
    assert len(products) == len(steps[-1].outcome.changed)
    # between kernels, images are stored in half the bytes
    monkeypatch.setattr(attention, "serves", lambda *_: False)  # one kernel in float32, but several in bfloat16
    plain = lower(Pipeline.parse("O2").run(model)[0], CpuCodeGenerator.of(native()))
    assert traffic(program) < 0.62 * traffic(plain)


def traffic(program: Program) -> int:
    return sum(argument.bytes for step in program.steps for argument in step.arguments)


def test_without_ties_the_outputs_are_those_of_pytorch() -> None:
    # small whole numbers: nothing is rounded, so the same bits must come out whatever the order
    sketch = Sketch()
    data = sketch.input(1, 6, 5, 5)
    short = sketch.call(aten.to.dtype, data, torch.bfloat16)
    weight = sketch.stored(torch.randint(-3, 4, (10, 6, 3, 3)).bfloat16())
    factors = (sketch.call(aten.to.dtype, node, torch.float32) for node in (short, weight))
    conv = sketch.call(aten.conv2d.default, *factors, None, [1, 1], [1, 1])
    result = sketch.call(aten.to.dtype, sketch.call(aten.to.dtype, conv, torch.bfloat16), torch.float32)
    model = sketch.model(result)
    inputs = np.round(numbers(1, 6, 5, 5))
    np.testing.assert_array_equal(run(lower(model, CpuCodeGenerator.of(native())), inputs)[0], model(inputs)[0])


def test_a_layer_left_alone_reads_float32() -> None:
    model = traced(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)), 1, 8, 4, 4)
    rewritten, _ = Pipeline.parse("O2,lower-precision{skip=*_1}").run(model)
    inputs = seeded_inputs(model.inputs, 0)
    found = run(lower(rewritten, CpuCodeGenerator.of(native())), *inputs)[0]
    assert relative_difference(found, rewritten(*inputs)[0]) < 5e-3


def test_other_targets_build_the_instruction() -> None:
    model = traced(nn.Conv2d(16, 16, 1), 1, 16, 4, 4)
    artefact = lvc.compile(model, "O2", "znver4", precision="bf16")
    assert "avx512bf16" in artefact.files["plan.json"].decode()


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "znver3"])
def test_targets_without_it_are_refused_before_the_model_is_loaded(target: str) -> None:
    with pytest.raises(UsageError, match="cannot multiply bfloat16") as caught:
        lvc.compile("there.is.no:model", "O2", target, precision="bf16")
    assert "avx512bf16" in caught.value.why
    assert "znver4" in caught.value.help


def test_the_command_refuses_with_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "there.is.no:model", "--precision", "bf16", "-t", "x86-64-v3"]) == 2
    assert "cannot multiply bfloat16" in capsys.readouterr().err


def test_a_model_in_bfloat16_is_refused_too() -> None:
    model = traced(nn.Conv2d(4, 4, 1), 1, 4, 4, 4)
    rewritten, _ = Pipeline.parse("lower-precision").run(model)
    with pytest.raises(CompileError, match="cannot multiply bfloat16"):
        lvc.compile(rewritten, "O0", "x86-64-v3")


def test_arithmetic_in_bfloat16_itself_is_refused() -> None:
    sketch = Sketch()
    short = sketch.call(aten.to.dtype, sketch.input(1, 4), torch.bfloat16)
    model = sketch.model(sketch.call(aten.to.dtype, sketch.call(aten.relu.default, short), torch.float32))
    with pytest.raises(CompileError, match="cannot build 1 node") as caught:
        lvc.compile(model, "O0", "x86-64-v3")
    assert "by way of float32" in caught.value.why


def test_the_check_holds_a_lossy_artefact_against_its_own_graph() -> None:
    model = traced(nn.Conv2d(16, 16, 3), 1, 16, 6, 6)
    pipeline = Pipeline.parse("O2").with_precision("bf16")
    rewritten, _ = pipeline.run(model)
    artefact = lvc.compile(rewritten, "O0", "reference")
    examples = examples_of(model, 0, thorough=False)
    found = verify_artefact(artefact, rewritten, examples, is_lossy=True)
    assert (found.difference, found.against) == (0.0, "the rewritten graph in PyTorch")
    with pytest.raises(CheckError, match="differs from PyTorch"):
        verify_artefact(artefact, traced(nn.Conv2d(16, 16, 3), 1, 16, 6, 6), examples, is_lossy=True)

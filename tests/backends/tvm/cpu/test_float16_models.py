"""Whole models in half precision: what is summed how, what stays in float32, and what targets without it are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sketch import Sketch
from test_arm import TARGETS, Floats, need
from torch import nn

import lvc
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT16, FLOAT32
from lvc.backends.tvm.legality import multiplied_dtypes
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import compile_and_report
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.verification.closeness import Comparison

TARGET = "neoverse-n1"
SHORT = Pipeline.parse("O2").with_precision("fp16")


SUMS = "sums in half precision, one term after another"


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.ReLU(), nn.Conv2d(20, 24, 3, padding=1), nn.ReLU())


def traced(module: nn.Module) -> Model:
    return from_module(module.eval(), torch.randn(1, 3, 12, 14))


def operands(model: Model) -> list[object]:
    """What the kernels of a model multiply."""
    generator = CpuCodeGenerator.of(Target.parse(TARGET), multiplied_dtypes(model))
    problems = (getattr(step.schedule, "problem", None) for step in lower(model, generator).steps)
    return [problem.operand for problem in problems if hasattr(problem, "operand")]


@pytest.mark.parametrize(
    "target", [TARGET, *(pytest.param(name, marks=TARGETS) for name in ("cortex-a55", "apple-m1"))]
)
def test_a_model_is_as_close_as_half_precision(target: str) -> None:
    need(target)
    torch.manual_seed(1)
    data, network = torch.randn(1, 3, 32, 40), Floats().eval()
    artefact, report = compile_and_report(from_module(network, data), SHORT, target)
    assert report.built is not None
    assert report.built.emulated
    long = lvc.compile(from_module(network, data), "O2", target, verify=False)
    assert len(artefact.files["weights.bin"]) < 0.75 * len(long.files["weights.bin"])
    found = lvc.load(artefact, threads=2, emulate=True)(data.numpy())
    for ours, wanted in zip(found, network(data), strict=True):
        wanted = wanted.detach().numpy()
        assert np.abs(ours - wanted).max() <= 2**-7 * np.abs(wanted).max()


def test_registers_are_full_of_halves() -> None:
    rewritten, _ = SHORT.run(traced(layers()))
    generator = CpuCodeGenerator.of(Target.parse(TARGET), multiplied_dtypes(rewritten))
    assert generator.block == 8
    assert CpuCodeGenerator.of(Target.parse(TARGET)).block == 4
    assert set(operands(rewritten)) == {FLOAT16}


def test_beside_integers_there_are_half_as_many() -> None:
    """Bytes are summed in lanes of 32 bits, of which registers have four."""
    assert CpuCodeGenerator.of(Target.parse(TARGET), {torch.float16, torch.int32}).block == 4


@pytest.mark.parametrize("target", ["cortex-a72", "armv7", "x86-64-v3"])
def test_targets_without_it_are_refused_before_the_model_is_loaded(target: str) -> None:
    with pytest.raises(UsageError, match="cannot multiply float16") as caught:
        lvc.compile("there.is.no:model", "O2", target, precision="fp16")
    assert caught.value.why.startswith(f"{target} has no")
    for name in ("cortex-a55", "cortex-a76", "cortex-x1", "neoverse-n1", "neoverse-v2", "apple-m1"):
        assert name in caught.value.help


def test_a_processor_may_have_it_beyond_its_name() -> None:
    assert CpuCodeGenerator.of(Target.parse("cortex-a72+fp16"), {torch.float16}).block == 8


def skips(module: nn.Module) -> tuple[Model, dict[str, str]]:
    """A model in half precision, and why parts of it are not."""
    rewritten, steps = SHORT.run(traced(module))
    (outcome,) = [step.outcome for step in steps if step.item.name == "lower-precision"]
    return rewritten, {skip.origin: skip.reason for skip in outcome.skipped}


def test_weights_that_do_not_fit_stay_as_they_are() -> None:
    module = layers()
    with torch.no_grad():
        module[2].weight[0, 0, 0, 0] = 7e4
    rewritten, reasons = skips(module)
    assert reasons == {"2": "its weight reaches 7e+04, and float16 no more than 65504"}
    assert FLOAT32 in operands(rewritten)


def test_values_that_do_not_fit_stay_as_they_are() -> None:
    module = layers()
    with torch.no_grad():
        module[0].weight.mul_(3e4)
        module[2].weight.mul_(1e-4)
    rewritten, reasons = skips(module)
    assert "too near to float16's 65504" in reasons["2"]
    inputs = seeded_inputs(rewritten.inputs, 0)
    found, wanted = rewritten(*inputs)[0], traced(module)(*inputs)[0]
    assert np.abs(found - wanted).max() <= 2**-7 * np.abs(wanted).max()


def test_sums_that_could_overflow_on_the_way_stay_as_they_are() -> None:
    """Products of either sign may add up to little in the end."""
    module = layers()
    with torch.no_grad():
        module[0].weight.mul_(1e2)
        module[2].weight.copy_(100 * torch.where(torch.rand(24, 20, 3, 3) < 0.5, -1.0, 1.0))
    assert "sums of 256 products could reach" in skips(module)[1]["2"]


def test_sums_explain_what_they_move_and_no_more() -> None:
    rewritten, _ = SHORT.run(traced(layers()))
    inputs = seeded_inputs(rewritten.inputs, 0)
    own = rewritten(*inputs)
    noise = np.random.default_rng(0).standard_normal(own[0].shape).astype(np.float32)
    scale = float(np.sqrt(np.mean(own[0] ** 2)))
    assert Comparison(rewritten, inputs, own, [own[0] + 1e-3 * scale * noise]).explanation == SUMS
    assert not Comparison(rewritten, inputs, own, [own[0] + 2e-2 * scale * noise]).agrees
    assert not Comparison(rewritten, inputs, own, [np.full_like(own[0], np.inf)]).agrees


def test_half_precision_is_no_type_of_inputs() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.call(aten.to.dtype, sketch.input(1, 4), torch.float16))
    with pytest.raises(CompileError, match="cannot build") as caught:
        lvc.compile(model, "O0", TARGET)
    assert "not of inputs and outputs" in caught.value.why

"""The driver's check: what differs is refused, unless PyTorch itself rounds as much."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch

import lvc
from lvc.compiler import container
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir import serialise
from lvc.compiler.ir.graph import WINOGRAD, calls, store
from lvc.compiler.measure.precision import exact_outputs
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.verification.artefact import verify_artefact
from lvc.compiler.verification.examples import examples_of
from lvc.compiler.writing import write_model


class Scaled(torch.nn.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))
        self.offset = torch.nn.Parameter(torch.tensor(offset))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale + self.offset) - self.offset


def built_with(model: lvc.Model, scale: float) -> lvc.Artefact:
    """An artefact of the model with another scale: what a faulty backend could have made."""
    wrong = model.copy()
    store(wrong.module, "scale", torch.tensor(scale))
    artefact = lvc.compile(model, "O0", "reference")
    return dataclasses.replace(artefact, files=serialise.to_files(wrong))


def check(model: lvc.Model, scale: float) -> float:
    examples = examples_of(model, 0, thorough=True)
    found = verify_artefact(built_with(model, scale), model, examples, is_lossy=False).difference
    assert found is not None
    return found


def test_compiling_leaves_the_model_as_it_was() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    torch.nn.init.uniform_(layers[1].running_var, 0.5, 1.5)
    model = lvc.from_module(layers, torch.zeros(1, 3, 8, 8))
    before = serialise.to_files(model)
    artefact = lvc.compile(model, "O2", "reference")
    assert serialise.to_files(model) == before
    assert artefact.files["weights.bin"] != before["weights.bin"], "the normalisation was folded into other weights"


@dataclass(frozen=True, kw_only=True)
class StepInPlace(Pass):
    """Move parameters as an optimiser does."""

    name: ClassVar[str] = "step-in-place"
    effect: ClassVar[Effect] = Effect.LOSSY

    def apply(self, model: lvc.Model, workspace: Workspace) -> Outcome:
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.add_(1.0)
        return Outcome(changed=["all"])


def test_a_pass_that_trains_has_tensors_of_its_own() -> None:
    model = lvc.from_module(Scaled(0.0), torch.zeros(1, 64))
    before = serialise.to_files(model)
    artefact = lvc.compile(model, lvc.Pipeline((StepInPlace(),)), "reference")
    assert serialise.to_files(model) == before
    assert artefact.files["weights.bin"] != before["weights.bin"]


def test_a_faithful_artefact_passes() -> None:
    assert check(lvc.from_module(Scaled(0.0), torch.zeros(1, 64)), 1.0) == 0.0


def test_a_wrong_artefact_is_refused() -> None:
    with pytest.raises(CheckError, match="differs from PyTorch"):
        check(lvc.from_module(Scaled(0.0), torch.zeros(1, 64)), 1.001)


def test_rounding_that_the_network_magnifies_is_no_fault() -> None:
    model = lvc.from_module(Scaled(30_000.0), torch.zeros(1, 64))
    assert check(model, 1.0 + 1e-6) >= 0.0
    nudged = check(model, 1.0002)
    assert nudged > 1e-4


def test_rounding_of_minimal_filtering_is_coarser() -> None:
    model = lvc.from_module(Scaled(30_000.0), torch.zeros(1, 64))
    with pytest.raises(CheckError):
        check(model, 1.0015)
    next(calls(model.module.graph)).meta[WINOGRAD] = 4
    assert check(model, 1.0015) > 1e-3
    with pytest.raises(CheckError):
        check(model, 1.015)


def test_magnified_rounding_excuses_no_wrong_artefact() -> None:
    with pytest.raises(CheckError):
        check(lvc.from_module(Scaled(30_000.0), torch.zeros(1, 64)), 1.05)


def test_double_precision_is_nearer_the_truth() -> None:
    model = lvc.from_module(Scaled(30_000.0), torch.zeros(1, 64))
    inputs = (np.full((1, 64), 0.1, np.float32),)
    exact = exact_outputs(model, inputs)
    assert exact is not None
    np.testing.assert_allclose(exact[0], np.float64(np.float32(0.1)), rtol=1e-9)
    assert abs(float(model(*inputs)[0][0, 0]) - 0.1) > 1e-4


@pytest.mark.parametrize("suffix", [".onnx", ".lvc"])
def test_a_written_model_says_how_it_is_used(suffix: str, tmp_path: Path) -> None:
    model = lvc.from_module(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4))
    model.preprocessing, model.labels = "mean=127,std=128,range=255", ("cat", "dog, seen from behind")
    file = tmp_path / f"small{suffix}"
    write_model(model, file)
    again = lvc.load_model(str(file))
    assert (again.preprocessing, again.labels) == (model.preprocessing, model.labels)
    if suffix == ".lvc":
        assert container.read(file).metadata["preprocessing"] == model.preprocessing


def test_an_artefact_spells_its_preprocessing_out() -> None:
    """Devices know no preset by its name."""
    model = lvc.from_module(torch.nn.ReLU(), torch.zeros(1, 3, 4, 4))
    model.preprocessing = "imagenet, crop=200, crop=192"
    told = "resize=256,crop=192,layout=rgb,range=1,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
    assert lvc.compile(model, verify=False).metadata["preprocessing"] == told
    model.preprocessing = "imagenot"
    with pytest.raises(UsageError, match="did you mean 'imagenet'"):
        lvc.compile(model, verify=False)


def test_damaged_properties_of_an_onnx_file_say_nothing(tmp_path: Path) -> None:
    model = lvc.from_module(torch.nn.ReLU(), torch.zeros(1, 3))
    file = tmp_path / "small.onnx"
    write_model(model, file)
    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, {"lvc.preprocessing": "[" * 100_000, "lvc.labels": '{"a": 1}'})
    onnx.save(proto, file)
    again = lvc.load_model(str(file))
    assert (again.preprocessing, again.labels) == (None, None)

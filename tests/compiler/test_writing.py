"""Models in files: each backend that keeps models has a suffix of its own, and no name says anything else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lvc.backends.onnx import OnnxBackend
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Target
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module, load
from lvc.compiler.pipeline import registry
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import check_model_suffix, keeps_simulation, write_model


class Listing(OnnxBackend):
    """Keeps the names of a graph's nodes, and nothing else."""

    name = "listing"
    model_suffix = ".list"
    keeps_simulation = False

    def targets(self) -> dict[str, str]:
        return {"listing": "names"}

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        names = "\n".join(node.name for node in model.module.graph.nodes).encode()
        return Artefact(
            model.name, self.name, target.text, model.inputs, model.outputs, {"names": names}, suffix=self.model_suffix
        )


def net() -> Model:
    return from_module(nn.ReLU(), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model.lvc"])
def test_what_is_written_can_be_loaded(name: str, tmp_path: Path) -> None:
    write_model(net(), tmp_path / name)
    assert [value.spec for value in load(str(tmp_path / name)).inputs] == [value.spec for value in net().inputs]


def test_statistics_of_a_graph_that_are_parameters_are_exported(tmp_path: Path) -> None:
    text = """model norm(x: f32[2,3,4,4])
  @mean : f32[3]
  @var : f32[3]
  %y = batch_norm(%x, None, None, @mean, @var, False, 0.1, 1e-05, True)
  return out=%y
"""
    model, image = parse_model(text), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert dict(model.module.named_parameters()).keys() == {"mean", "var"}
    write_model(model, tmp_path / "norm.pt2")
    np.testing.assert_allclose(load(str(tmp_path / "norm.pt2"))(image)[0], model(image)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["model.so", "model", "model.ONNX"])
def test_other_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="cannot write a model as") as caught:
        check_model_suffix(Path(name))
    assert caught.value.help == "end the name in .onnx, .lvc, .txt, .pt2, .safetensors"


def test_who_reads_onnx_makes_integers_of_simulated_layers() -> None:
    names = ("a.onnx", "a.lvc", "a.pt2", "a.txt", "a")
    assert [keeps_simulation(Path(name)) for name in names] == [True, False, False, False, False]


def test_a_backend_from_elsewhere_keeps_models_under_its_own_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = SimpleNamespace(name="listing", value="elsewhere:LISTING", load=Listing)
    monkeypatch.setattr(registry, "entry_points", lambda group: {"listing": point} if group == "lvc.backends" else {})
    write_model(net(), tmp_path / "net.list")
    assert "relu" in (tmp_path / "net.list").read_text().split()
    with pytest.raises(UsageError) as caught:
        check_model_suffix(Path("net.so"))
    assert ".list" in caught.value.help

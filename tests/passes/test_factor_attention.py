"""Attention's layers are factored jointly, or by themselves, under one budget, and never both."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_models import CHANNELS, FORMS, HEADS, WIDTH, Attention, Network, traced, turned
from calibration_data import normal
from clockwork import Watch
from torch import nn

from lvc.compiler.driver import compile, optimise
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model


@cache
def network(form: str) -> Model:
    """A network whose queries and keys nearly meet in half the dimensions of a head, and so do values and outputs."""
    torch.manual_seed(0)
    module = FORMS[form]()
    for name, parameter in module.named_parameters():
        if "attention" in name and parameter.ndim == 2:
            axes = torch.linalg.svd(torch.randn(CHANNELS, CHANNELS))[0]
            parameter.data.mul_(4).copy_(parameter.data @ axes * torch.arange(1, CHANNELS + 1).pow(-1.5) @ axes.T * 8)
    return traced(module)


def factored(model: Model, options: str, workspace: Workspace | None = None) -> tuple[Model, Outcome]:
    made, (step,) = optimise(model, Pipeline.parse(f"factor-low-rank{{{options}}}"), workspace or Workspace(threads=1))
    return made, step.outcome


def moved(model: Model, made: Model) -> float:
    """How far outputs move on other images, in the root of the mean square, relative to how far they vary."""
    images = np.random.default_rng(7).standard_normal((16, 1, 3, 12, 12)).astype(np.float32)
    wanted, found = (np.concatenate([one(image)[0] for image in images]) for one in (model, made))
    return float(np.sqrt(np.square(found - wanted).mean() / wanted.var(0).mean()))


def picks(outcome: Outcome) -> dict[str, str]:
    (table,) = outcome.tables
    return {str(row[0]): str(row[1]) for row in table.rows}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["attention", "auto"])
def test_a_budget_is_kept_with_joint_factors(form: str, method: str) -> None:
    model = network(form)
    made, outcome = factored(model, f"macs=0.85 method={method} skip=patches,head", normal(model, 32))
    assert (
        0.75 * total_macs(model.module.graph) < total_macs(made.module.graph) <= 0.85 * total_macs(model.module.graph)
    )
    assert any("products of attention factored jointly; MACs" in note for note in outcome.notes)
    assert any(name.endswith(("query/key)", "value/output)")) for name in picks(outcome))
    assert moved(model, made) < 0.5


@pytest.mark.parametrize("goal", ["params", "bytes"])
def test_what_heads_save_is_counted_exactly(goal: str) -> None:
    model = network("packed")
    made, outcome = factored(model, f"{goal}=0.8 method=attention", normal(model, 32))
    rows = [row for row in outcome.tables[0].rows if row[1] != "as it is"]
    assert made.parameters <= 0.8 * model.parameters
    assert [str(row[0]).rpartition(" ")[2] for row in rows] == ["(query/key)", "(value/output)"]
    scores, values = (WIDTH - int(str(row[1]).split()[1]) for row in rows)
    assert model.parameters - made.parameters == HEADS * ((2 * CHANNELS + 2) * scores + (2 * CHANNELS + 1) * values)


def test_joint_factors_keep_outputs_nearer_than_those_of_single_layers() -> None:
    model = network("packed")
    data = normal(model, 64)
    share = "macs=0.8 skip=patches,head"
    single, joint, auto = (
        moved(model, factored(model, f"{share} method={method}", data)[0]) for method in ("svd", "attention", "auto")
    )
    assert joint < 0.7 * single
    assert auto < 1.2 * joint


def test_data_say_which_dimensions_matter() -> None:
    torch.manual_seed(0)
    module = Network(Attention())
    with torch.no_grad():
        module.patches.weight.copy_((torch.randn(CHANNELS, 3) @ torch.randn(3, 48)).view(CHANNELS, 3, 4, 4))
    model = traced(module)
    with_data, without = (
        moved(model, factored(model, "rank=3 method=attention", data)[0]) for data in (normal(model, 64), None)
    )
    assert with_data < 0.3 * without


def test_a_layer_is_not_factored_twice() -> None:
    model = network("packed")
    _, outcome = factored(model, "energy=0.9", normal(model, 32))
    taken = picks(outcome)
    products_ = [name for name, pick in taken.items() if pick.startswith("attention")]
    assert len(products_) == 2
    assert taken["attention.qkv"] == taken["attention.output"] == "as it is"
    reasons = {skip.origin: skip.reason for skip in outcome.skipped}
    assert reasons["attention.output"] == f"{products_[1]} is factored instead"


def test_energy_finds_the_true_rank() -> None:
    module = Network(Attention())
    assert isinstance(module.attention, Attention)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in (module.attention.key, module.attention.value):
            mixed = torch.randn(HEADS, WIDTH, 3) @ torch.randn(HEADS, 3, CHANNELS + 1)
            layer.weight.copy_(mixed[..., :-1].flatten(0, 1))
            layer.bias.copy_(mixed[..., -1].flatten())
    model = traced(module)
    made, outcome = factored(model, "energy=0.999999 method=attention", normal(model, 32))
    assert {pick for pick in picks(outcome).values() if pick != "as it is"} == {"attention 3"}
    assert moved(model, made) < 1e-3


@pytest.mark.parametrize(
    ("options", "left"),
    [("skip=attention.key", {"value/output"}), ("only=attention.value,attention.output", {"value/output"})],
)
def test_products_go_by_the_names_of_their_layers(options: str, left: set[str]) -> None:
    model = network("separate")
    _, outcome = factored(model, f"rank=4 method=attention {options}")
    assert {name.rpartition("(")[2].strip(")") for name in picks(outcome)} == left
    assert any(skip.reason.startswith(options.partition("=")[0]) for skip in outcome.skipped)


def test_what_is_no_product_has_a_reason() -> None:
    model = traced(Network(Attention(query=turned, key=turned)))
    _, outcome = factored(model, "rank=4 method=attention")
    reasons = {skip.reason for skip in outcome.skipped}
    assert reasons == {"queries and keys: they go through cat", "it makes and reads no heads of attention"}


@pytest.mark.parametrize("form", ["packed", "torch", "convolutions"])
def test_narrower_heads_run_in_integers_onnx_and_native_code(form: str, tmp_path: Path) -> None:
    import onnxruntime

    model = network(form)
    data = normal(model, 16)
    made, _ = factored(model, "macs=0.8 method=attention", data)
    image = np.random.default_rng(5).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (wanted,) = made(image)
    write_model(made, tmp_path / "heads.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "heads.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: image})[0], wanted, atol=1e-4)
    for preset, bound in (("O2", 1e-4), ("int8-fast", 0.2)):
        artefact = compile(made, preset, workspace=data, verify=False)
        (found,) = catalogue.BACKENDS.get("tvm").load(artefact, 1)(image)
        assert np.abs(found - wanted).max() < bound * np.abs(wanted).max(), preset


def test_a_model_that_takes_fewer_images_at_once_after_a_pass_is_judged() -> None:
    """O1 writes a permutation around a batch of one as a reshape, and then images cannot go together."""
    module = FORMS["torch"]().eval()
    model = from_module(module, torch.randn(1, 3, 12, 12))
    _, steps = optimise(model, Pipeline.parse("O1,factor-low-rank{rank=4 method=attention}"), normal(model, 32))
    assert steps[-1].measured["loss"].images


def test_latency_comes_down_by_heads_that_the_vectors_like() -> None:
    model = network("packed")
    used = Workspace(data=normal(model, 32).data, threads=1, stopwatch=Watch(2))
    made, outcome = factored(model, "latency=0.85 method=attention", used)
    assert 0.7 < total_macs(made.module.graph) / total_macs(model.module.graph) <= 0.85
    rows = [row for row in outcome.tables[0].rows if row[1] != "as it is"]
    assert all(int(str(row[1]).split()[1]) % 2 == 0 for row in rows)
    assert all(float(row[5]) > float(row[6]) for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rank=9 method=attention", "no layer has a rank of 9: the largest is 8"),
        ("vbmf=true method=attention", "there is no noise to tell the heads of attention from"),
        ("macs=0.05 method=attention", r"macs=0\.05 cannot be reached: at least 0\.\d+ of today's MACs stay"),
        ("rank=2 method=attention skip=nothing", "the pattern 'nothing' matches nothing"),
    ],
)
def test_misuse(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        factored(network("packed"), options)


def test_a_network_without_attention_is_left_alone() -> None:
    model = from_module(nn.Linear(4, 4).eval(), torch.randn(1, 4))
    _, outcome = factored(model, "rank=2 method=attention")
    assert not outcome.changed

"""Weights in few bits: what each format holds, what the pass leaves alone, and that every backend reads them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.compiler.load import from_module, load
from lvc.compiler.pipeline.catalogue import BACKENDS
from lvc.compiler.pipeline.observers import Verifier, relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model
from lvc.passes.quantisation.weight_format import WEIGHT_FORMATS

FORMATS = ["linear", "power-of-two", "log", "codebook"]


class Net(nn.Module):
    """A convolution of each kind, one for Winograd's algorithm among them, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.wide = nn.Conv2d(20, 32, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.grouped = nn.Conv2d(32, 32, 3, groups=4)
        self.square = nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64, 11)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.wide(torch.relu(self.first(image))))))
        return self.fc(torch.relu(self.square(torch.relu(self.grouped(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Model:
    torch.manual_seed(0)
    return from_module(Net(), torch.zeros(1, 3, 64, 64), name="net")


def error(format: str, rows: torch.Tensor, bits: int) -> float:
    coded = WEIGHT_FORMATS.parse(format).encode(rows, bits)
    return float((coded.decoded() - rows).square().sum() / rows.square().sum())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codebooks_are_in_order_and_hold_zero(format: str, bits: int) -> None:
    rows = torch.cat([torch.randn(5, 40, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 40)])
    codebook = WEIGHT_FORMATS.parse(format).fit(rows, bits)
    assert codebook.values.shape == (1 << bits,)
    assert bool((codebook.values.diff() >= 0).all())
    assert 0.0 in codebook.values
    assert bool((codebook.scale > 0).all())
    found = codebook.values[codebook.nearest(rows)] * codebook.scale[:, None]
    every = codebook.values * codebook.scale[:, None]
    distance = (rows[:, :, None] - every[:, None, :]).abs().amin(2)
    torch.testing.assert_close((found - rows).abs(), distance)
    assert not bool(found[5].any())


def test_each_format_holds_what_it_is_for() -> None:
    steps = torch.arange(-7, 8).float()[None] * 0.3
    assert error("linear", steps, 4) < 1e-12
    assert error("power-of-two", torch.arange(-7, 8).float()[None] * 0.25, 4) == 0
    powers = torch.tensor([[2.0**-e for e in range(7)] + [0.0] + [-(2.0**-e) for e in range(7)]])
    assert error("log", powers, 4) == 0
    assert error("linear", powers, 4) > 1e-3
    clusters = torch.tensor([[-0.9, -0.31, 0.0, 1.0]]).repeat(2, 6)
    assert error("codebook", clusters, 2) < 1e-12
    assert error("linear", clusters, 2) > 1e-2


def test_power_of_two_scales() -> None:
    rows = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    scale = WEIGHT_FORMATS.parse("power-of-two").fit(rows, 8).scale
    assert scale.log2().frac().abs().max() == 0


def test_a_learned_codebook_is_better_than_equal_steps() -> None:
    rows = torch.randn(16, 400, generator=torch.Generator().manual_seed(0))
    assert error("codebook", rows, 4) < 0.9 * error("linear", rows, 4)


def test_groups_follow_the_input_channels() -> None:
    weight = torch.ones(2, 4, 3, 3)
    weight[:, 2:] = 100.0
    whole, parts = (WEIGHT_FORMATS.parse("linear").encode(weight * 0.123, 4, group) for group in (0, 2))
    assert whole.scale.shape == (2, 1)
    assert parts.scale.shape == (2, 2)
    assert parts.scale[0, 1] == pytest.approx(100 * float(parts.scale[0, 0]))
    torch.testing.assert_close(parts.decoded(), weight * 0.123)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.27), (4, 0.16)])
def test_bytes(bits: int, most: float) -> None:
    torch.manual_seed(0)
    model = from_module(nn.Sequential(nn.Conv2d(64, 128, 3), nn.Conv2d(128, 128, 3)), torch.zeros(1, 64, 8, 8))
    made, (step,) = Pipeline.parse(f"quantise-weights{{bits={bits}}}").run(model, observers=[Verifier()])
    assert made.bytes <= most * model.bytes
    assert f"({made.bytes / model.bytes:.3f}x)" in step.outcome.notes[0]
    assert len(step.outcome.tables[0].rows) == 2


@pytest.mark.parametrize(
    "options",
    ["bits=8", "bits=4 format=log", "bits=4 format=codebook{rounds=5}", 'bits=4 group=4 skip="first"', "bits=2"],
)
def test_code_gives_the_model(options: str, net: Model) -> None:
    options = options.replace("codebook{rounds=5}", '"codebook{rounds=5}"')
    made, steps = Pipeline.parse(f"O2,quantise-weights{{{options}}}").run(net, observers=[Verifier()])
    assert steps[-1].outcome.changed
    target = Target.parse("native")
    backend = BACKENDS.get(target.backend)
    artefact = backend.build(made, target, Workspace(threads=2))
    inputs = seeded_inputs(net.inputs, 0)
    for threads in (1, 2):
        found = backend.load(artefact, threads)(*inputs)
        assert relative_difference(found[0], made(*inputs)[0]) < 1e-5


@pytest.mark.parametrize(("format", "bits"), [*itertools.product(FORMATS, [8, 4]), ("linear", 2)])
@pytest.mark.parametrize("opset", [17, 21])
def test_onnx_gives_the_model(format: str, bits: int, opset: int, net: Model) -> None:
    made, _ = Pipeline.parse(f"O1,quantise-weights{{bits={bits} format={format}}}").run(net)
    target = Target.parse(f"onnx-{opset}")
    backend = BACKENDS.get("onnx")
    inputs = seeded_inputs(net.inputs, 0)
    artefact = backend.build(made, target, Workspace())
    found = backend.load(artefact, 1)(*inputs)
    assert relative_difference(found[0], made(*inputs)[0]) < 1e-5
    if format == "linear" and (bits == 8 or (bits == 4 and opset == 21)):
        assert len(artefact.files["model.onnx"]) < net.bytes * (bits / 32 + 0.12)


def test_files_are_read_again(tmp_path, net: Model) -> None:
    made, _ = Pipeline.parse("O1,quantise-weights{bits=4}").run(net)
    write_model(made, tmp_path / "small.lvc")
    again = load(str(tmp_path / "small.lvc"))
    inputs = seeded_inputs(net.inputs, 0)
    np.testing.assert_array_equal(again(*inputs)[0], made(*inputs)[0])
    assert (tmp_path / "small.lvc").stat().st_size < 0.3 * net.bytes
    folded, _ = Pipeline.parse("O2").run(again)
    assert len(list(calls(folded.module.graph, DECODE))) == 6


def test_what_stays_is_said(net: Model) -> None:
    made, (step,) = Pipeline.parse('quantise-weights{group=4 only="*conv2d*"}').run(net)
    reasons = {skip.node: skip.reason for skip in step.outcome.skipped}
    assert reasons["conv2d"] == "its 3 input channels are not a multiple of group=4"
    assert reasons["linear"] == "only=*conv2d* leaves it out"
    _, (again,) = Pipeline.parse("quantise-weights").run(made)
    assert again.outcome.changed == ["conv2d", "conv2d_2", "linear"]
    assert "it is quantised already" in {skip.reason for skip in again.outcome.skipped}


def test_what_would_not_get_smaller_stays() -> None:
    model = from_module(torch.nn.Linear(8, 4), torch.zeros(1, 8))
    made, (step,) = Pipeline.parse("quantise-weights").run(model)
    assert [skip.reason for skip in step.outcome.skipped] == [
        "its 128 bytes would become 1072, with scales and a table"
    ]
    assert made.to_text() == model.to_text()


@pytest.mark.parametrize("options", ["bits=3", "bits=1", "group=-1", "format=lineal", "bits=9"])
def test_misuse(options: str) -> None:
    with pytest.raises(UsageError):
        Pipeline.parse(f"quantise-weights{{{options}}}")


def test_a_pattern_that_matches_nothing(net: Model) -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        Pipeline.parse('quantise-weights{only="head"}').run(net)


def test_layers_share_a_table_of_values(net: Model) -> None:
    """So that small layers, such as factors, are no larger in few bits than before."""
    made, _ = Pipeline.parse("quantise-weights{only=depthwise,grouped,fc}").run(net)
    decoded = list(calls(made.module.graph, DECODE))
    assert len({node.args[1] for node in decoded}) == 1 < len(decoded)
    weights = [net.module.get_parameter(f"{name}.weight") for name in ("depthwise", "grouped", "fc")]
    codes, scales = sum(map(torch.numel, weights)), sum(map(len, weights))
    assert net.bytes - made.bytes == 4 * codes - (codes + 4 * scales + 4 * 256)
    inputs = seeded_inputs(net.inputs, 0)
    (wanted,), (found,) = net(*inputs), made(*inputs)
    assert relative_difference(found, wanted) < 0.02

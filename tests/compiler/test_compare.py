"""Two models side by side: figures worked out by hand, layers that find each other, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from svg_drawing import Drawing
from torch import nn

from lvc.compiler.cli import main
from lvc.compiler.ir.graph import calls, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module, load
from lvc.compiler.measure.comparison.pairs import pair_layers
from lvc.compiler.measure.comparison.signal import Signal
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.writing import write_model

torch.set_num_threads(1)
aten = torch.ops.aten
SIMULATED = "O1,insert-fake-quant,calibrate{estimator=min-max weights=min-max}"


class Net(nn.Module):
    """Three layers behind each other and class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.bn(self.first(image)))))
        return self.fc(x.mean((2, 3)))


def net() -> Model:
    torch.manual_seed(0)
    return from_module(Net(), torch.zeros(1, 3, 8, 8), name="net")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The network as a file, and images."""
    monkeypatch.chdir(tmp_path)
    write_model(net(), tmp_path / "net.lvc")
    images = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images, y=np.zeros(6, np.int64))
    return tmp_path


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["compare", "net.lvc", *arguments, "--data", "data.npz", "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def test_moments_by_hand() -> None:
    moments = Signal()
    moments.add(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 1.0]))
    moments.add(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    assert moments.sqnr == pytest.approx(10.0)
    assert moments.cosine == pytest.approx(10 / math.sqrt(110))
    assert moments.best_sqnr == pytest.approx(10 * math.log10(10 / (10 - 100 / 11)))
    assert Signal().sqnr == math.inf
    lost = Signal()
    lost.add(torch.ones(2), torch.tensor([math.nan, 1.0]))
    assert lost.sqnr == -math.inf


def test_a_model_equals_itself(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = compared(capsys, "net.lvc")
    assert [layer["leaves"] for layer in found["layers"]] == ["inf"] * 3
    assert found["unpaired"] == []
    assert found["outputs"][0]["agreement"] == 1.0
    assert found["outputs"][0]["images"] == 6


def test_the_layer_that_hurts_stands_first(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    model = net()
    node = next(n for n in model.module.graph.nodes if n.op == "get_attr" and "second.weight" in str(n.target))
    weight = tensor(model.module, node)
    assert weight is not None
    store(model.module, str(node.target), weight.detach() * 1.1)
    write_model(model, folder / "hurt.lvc")
    second, *others = compared(capsys, "hurt.lvc")["layers"]
    assert second["layer"] == "conv2d_1"
    assert second["arrives"] == "inf"
    assert second["adds"] == pytest.approx(second["leaves"])
    assert 15 < second["adds"] < 25  # the bias stays
    assert {layer["layer"]: layer["adds"] for layer in others} == {"conv2d": "inf", "linear": "inf"}
    assert next(layer for layer in others if layer["layer"] == "linear")["leaves"] < 60


def test_scaled_channels_are_told_from_error(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["opt", "net.lvc", "-p", "fold-batch-norm", "-o", "folded.lvc"]) == 0
    module = (model := load("folded.lvc")).module
    first, second, _ = calls(module.graph, aten.conv2d.default, aten.linear.default)
    for node, factor in ((first.args[1], 4.0), (first.args[2], 4.0), (second.args[1], 0.25)):
        value = tensor(module, node)
        assert value is not None
        store(module, str(node.target), value.detach() * factor)
    write_model(model, folder / "scaled.lvc")
    capsys.readouterr()
    for other, is_said in ((["scaled.lvc"], True), (["folded.lvc"], False), (["-p", SIMULATED], False)):
        assert main(["compare", "folded.lvc", *other, "--data", "data.npz"]) == 0
        assert ("1 layer with much more error than the outputs" in capsys.readouterr().err) == is_said


def test_scales_are_told_from_what_arrives(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = compared(capsys, "-p", SIMULATED, "--plot", "c.svg")
    assert [layer["partner"] for layer in found["layers"]] == [layer["layer"] for layer in found["layers"]]
    rows = {layer["layer"]: layer for layer in found["layers"]}
    assert rows["conv2d"]["arrives"] > 30
    assert rows["conv2d_1"]["adds"] > rows["conv2d_1"]["leaves"] - 1
    assert {name for name, row in rows.items() if not 25 < row["adds"] < 60} == set()
    drawing = Drawing((folder / "c.svg").read_bytes())
    assert {"first", "second", "fc", "signal-to-noise ratio against floating point, dB"} <= set(drawing.texts)
    assert [drawing.marks(f"dots-0-{series}") for series in range(3)] == [3, 3, 3]
    places = drawing.places("dots-0-0")
    assert places == sorted(places), "the layer that adds most error is on top"


def test_passes_before_the_first_that_quantises_have_the_data(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = compared(capsys, "-p", "int8-fast")
    assert len(found["layers"]) == 3
    assert all(layer["leaves"] > 20 for layer in found["layers"])


def test_integers_are_compared_up_to_a_factor(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    simulated = compared(capsys, "-p", SIMULATED, "--sort", "place")["layers"]
    whole = compared(capsys, "-p", f"{SIMULATED},lower-to-integer", "--sort", "place")["layers"]
    assert [row["adds"] for row in whole] == [None] * 3
    for ours, theirs in zip(whole, simulated, strict=True):
        assert ours["leaves"] == pytest.approx(theirs["leaves"], abs=6.0)


def test_layers_find_each_other_in_order_when_nothing_else_is_known() -> None:
    ours, theirs = net(), net()
    for node in calls(theirs.module.graph):
        node.meta["origin"] = ""
    extra = next(calls(theirs.module.graph, aten.linear.default))
    theirs.module.graph.node_copy(extra, lambda n: n)
    pairing = pair_layers(ours.module.graph, theirs.module.graph)
    assert [(p.floating.name, p.quantised.name) for p in pairing.pairs] == [
        ("conv2d", "conv2d"),
        ("conv2d_1", "conv2d_1"),
        ("linear", "linear"),
    ]
    assert [node.name for node in pairing.only_quantised] == ["linear_1"]


def test_code_is_compared_at_its_outputs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["compile", "net.lvc", "-O1", "-t", "native", "-o", "code.lvc"]) == 0
    capsys.readouterr()
    assert main(["compare", "net.lvc", "code.lvc", "--data", "data.npz"]) == 0
    captured = capsys.readouterr()
    assert "only outputs are compared" in captured.err
    assert "6 of 6 first choices agree" in captured.out


def test_the_table_can_be_short(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["compare", "net.lvc", "net.lvc", "--data", "data.npz", "--limit", "1", "--images", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0].split()[0], lines[0].split()[-1], lines[1].split()[-1]) == ("layer", "node", "conv2d")
    assert "exact" in lines[1]
    assert lines[2] == "3 layers paired"
    assert "2 of 2 first choices" in lines[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.lvc"], "give either QUANTISED or a pipeline"),
        (["net.lvc", "net.lvc", "-p", "O1"], "give either QUANTISED or a pipeline"),
        (["net.lvc", "net.lvc", "--plot", "c.gif"], "cannot draw 'c.gif'"),
        (["net.lvc", "other.lvc"], "the two models take different inputs"),
        (["net.lvc", "gone.lvc"], "there is no file 'gone.lvc'"),
        (["net.lvc", "-p", "int9"], "there is no pass 'int9'"),
    ],
)
def test_misuse(capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], message: str) -> None:
    torch.manual_seed(0)
    write_model(from_module(Net(), torch.zeros(1, 3, 9, 9), name="other"), folder / "other.lvc")
    assert main(["compare", *arguments, "--data", "data.npz"]) == 2
    assert message in capsys.readouterr().err


def test_batch_normalisation_is_folded_on_one_side_only_if_on_the_other(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    folded, _ = Pipeline.parse("O1").run(net())
    write_model(folded, folder / "folded.lvc")
    assert all(row["leaves"] == "inf" or row["leaves"] > 100 for row in compared(capsys, "folded.lvc")["layers"])

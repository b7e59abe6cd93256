"""Layers become factors where that costs less: within the budget, right in every backend, and told with reasons."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from calibration_data import normal
from clockwork import Watch
from test_prune_cifar import accuracy, images, network
from torch import nn
from torch.nn import functional

from lvc.compiler.driver import compile, optimise
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Race, Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.memory import activation_bytes
from lvc.compiler.writing import write_model
from lvc.passes.budget.costs import MACS
from lvc.passes.factorisations import cp
from lvc.passes.low_rank import study
from lvc.passes.low_rank.factorisation import METHODS, Parts
from lvc.passes.low_rank.layer import layer_of
from lvc.passes.low_rank.options import factor
from lvc.passes.low_rank.statistics import Statistics
from lvc.passes.low_rank.timing import KernelTimes
from lvc.passes.pruning.loss import relative_error


class Net(nn.Module):
    """Convolutions of every kind that can be factored, a depthwise one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.grouped = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(32, 24, 4, 2, 1)
        self.pointwise = nn.Conv2d(24, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        x = self.grouped(torch.relu(self.norm(self.wide(x))))
        return self.head(torch.relu(self.pointwise(torch.relu(self.up(x)))).mean((2, 3)))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return from_module(Net().eval(), torch.randn(1, 3, 12, 12))


def factored(model: Model, options: str, workspace: Workspace | None = None) -> tuple[Model, Outcome]:
    made, (step,) = optimise(model, Pipeline.parse(f"factor-low-rank{{{options}}}"), workspace or Workspace(threads=1))
    return made, step.outcome


def share(made: Model, model: Model) -> float:
    return totals(layers(made)).macs / totals(layers(model)).macs


@pytest.mark.parametrize("method", ["auto", *(name for name in METHODS.names() if name != "svd")])
def test_macs_come_down_to_the_budget(model: Model, method: str) -> None:
    made, outcome = factored(model, f"macs=0.75 method={method}", normal(model))
    assert 0.65 < share(made, model) <= 0.75
    assert outcome.changed
    assert made.outputs == model.outputs
    assert "layers factored; MACs" in outcome.notes[-1]


@pytest.mark.parametrize(("budget", "count"), [("params", "parameters"), ("bytes", "weight_bytes")])
def test_parameters_and_bytes_come_down_to_the_budget(model: Model, budget: str, count: str) -> None:
    made, _ = factored(model, f"{budget}=0.6")
    assert 0.5 < getattr(totals(layers(made)), count) / getattr(totals(layers(model)), count) <= 0.6


@pytest.mark.parametrize("budget", ["params", "bytes"])
def test_the_biases_that_fitting_adds_count(budget: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False))
    model = from_module(net.eval(), torch.randn(1, 8, 12, 12))
    made, _ = factored(model, f"{budget}=0.52 method=channel-svd", normal(model, 16))
    assert made.parameters <= 0.52 * model.parameters


def test_data_keep_the_outputs_nearer(model: Model) -> None:
    image = np.random.default_rng(5).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (wanted,) = model(image)

    def moved(workspace: Workspace | None) -> float:
        return float(np.square(factored(model, "macs=0.6", workspace)[0](image)[0] - wanted).mean())

    assert moved(normal(model, 32)) < 0.7 * moved(None)


def test_few_places_are_not_learnt_by_heart() -> None:
    """A random layer of half its rank gives a few dB, and everything on eight rows that it was fitted to."""
    torch.manual_seed(0)
    model = from_module(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval(), torch.randn(1, 64))
    _, outcome = factored(model, "rank=31 method=svd only=0", normal(model, 200))
    ((_, _, error, *_),) = outcome.tables[0].rows
    assert 3 < float(str(error).removesuffix(" dB")) < 12


def test_the_error_told_is_that_on_images_not_fitted_to() -> None:
    """Half of a random layer's rank, fitted on four places a column, which are half as good again on these."""
    torch.manual_seed(0)
    model = from_module(nn.Sequential(nn.Conv2d(16, 16, 1, bias=False)).eval(), torch.randn(1, 16, 2, 2))
    (layer,) = (layer_of(model.module, node) for node in calls(model.module.graph, *LAYERS))
    weighed = study.Study(model, [layer], Calibration.read(model, normal(model, 16), "calib"))
    parts = Parts.of(METHODS.parse("svd"), layer.kernel, Statistics())
    made = factor(parts, layer, (8,), MACS)
    assert not isinstance(made, str)
    fitted = weighed.fitted(layer, made)
    others = torch.randn(4096, 16, 2, 2, dtype=torch.float64)
    wanted = layer.kernel.apply(others)
    true = float((fitted.apply(others) - wanted).square().mean() / wanted.var())
    assert true / fitted.own == pytest.approx(1, abs=0.2)


def test_options_are_judged_on_as_many_images_as_fit_into_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Calibration.read(model, normal(model, 3 * study.JUDGED), "calib")

    def held() -> list[int]:
        weighed = study.Study(model, [], data)
        name = model.inputs[0].name
        halves = weighed._fitted_on, weighed._judged_on
        return [sum(len(v) for values in runs for node, v in values.items() if node.name == name) for runs in halves]

    assert held() == [study.JUDGED, study.JUDGED]
    monkeypatch.setattr(study, "_MOST_BYTES", 8 * activation_bytes(model))
    assert held() == [2, 2]


def test_what_is_left_has_a_reason(model: Model) -> None:
    _, outcome = factored(model, "macs=0.8 method=tucker2 skip=wide")
    reasons = {skip.origin: skip.reason for skip in outcome.skipped}
    assert reasons["wide"] == "skip=wide leaves it out"
    assert reasons["depthwise"] == "no ranks make it cheaper"
    assert reasons["head"] == "its window is 1x1, which is for svd"
    (table,) = outcome.tables
    assert table.headers[:3] == ("layer", "as", "error")
    assert {row[1] for row in table.rows} > {"as it is"}


def test_a_layer_of_too_small_a_rank_says_so(model: Model) -> None:
    _, outcome = factored(model, "rank=20 method=tucker2")
    reasons = {skip.origin: skip.reason for skip in outcome.skipped}
    assert reasons["wide"] == "its full rank is 16, and rank=20 is asked for"


def test_fixed_ranks_energy_and_noise(model: Model) -> None:
    made, outcome = factored(model, "rank=4 method=channel-svd only=wide")
    assert outcome.changed == ["conv2d_2"]
    weights = {name: tuple(value.shape) for name, value in made.module.named_parameters() if name.startswith("wide")}
    assert weights == {"wide.0.weight": (4, 16, 3, 3), "wide.1.weight": (32, 4, 1, 1)}
    less, more = (share(factored(model, f"energy={part}")[0], model) for part in (0.5, 0.9))
    assert less < more < 1
    assert share(factored(model, "vbmf=true method=tucker2")[0], model) < 1


def test_factors_run_in_integers_onnx_and_native_code(model: Model, tmp_path: Path) -> None:
    import onnxruntime

    data = normal(model, 16)
    made, _ = factored(model, "macs=0.6", data)
    image = np.random.default_rng(5).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (wanted,) = made(image)
    write_model(made, tmp_path / "factors.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "factors.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: image})[0], wanted, atol=1e-5)
    for preset, bound in (("O2", 1e-4), ("int8-fast", 0.1)):
        artefact = compile(made, preset, workspace=data, verify=False)
        (found,) = catalogue.BACKENDS.get("tvm").load(artefact, 1)(image)
        assert np.abs(found - wanted).max() < bound * np.abs(wanted).max(), preset


def test_latency_comes_down_to_the_budget(model: Model) -> None:
    data = normal(model)
    used = Workspace(data=data.data, threads=1, stopwatch=Watch())
    made, outcome = factored(model, "latency=0.7", used)
    assert 0.6 < share(made, model) <= 0.7
    assert any("latency on clockwork 0." in note for note in outcome.notes)
    (table,) = outcome.tables
    assert all(float(row[5]) >= float(row[6]) for row in table.rows if row[5])


class Elsewhere(Watch):
    """Most of a model's time is not in its kernels."""

    def compare(self, model: Model, with_model: Model) -> Race:
        race = super().compare(model, with_model)
        return Race(9 + race.seconds, 9 + race.other, 0.9 + 0.1 * race.share)


def test_a_model_that_gains_less_than_its_kernels_is_told_and_kept(model: Model) -> None:
    used = Workspace(data=normal(model).data, threads=1, stopwatch=Elsewhere())
    made, outcome = factored(model, "latency=0.6", used)
    assert share(made, model) < 0.6
    assert any("latency on clockwork 0.9" in note for note in outcome.notes)
    assert any("that misses the target of 0.6x" in note for note in outcome.notes)


class Slow(Watch):
    """Two layers are always slower than one."""

    def layers(self, model: Model) -> dict[str, float]:
        found: dict[str, float] = {}
        for layer in layers(model):
            if layer.macs:
                found[layer.origin] = found.get(layer.origin, -0.5) + 1.0
        return found


def test_factors_that_are_not_faster_are_not_taken(model: Model) -> None:
    used = Workspace(data=normal(model).data, threads=1, stopwatch=Slow())
    with pytest.raises(UsageError, match=r"at least 1\.000 of today's latency on clockwork stay"):
        factored(model, "latency=0.7", used)


class Shy(Watch):
    """Kernels by themselves have an overhead that the model as a whole does not know."""

    def layers(self, model: Model) -> dict[str, float]:
        return {name: seconds + 0.2 for name, seconds in super().layers(model).items()}

    def compare(self, model: Model, with_model: Model) -> Race:
        return Watch().compare(model, with_model)


def test_what_kernels_do_not_promise_is_measured_before_it_is_refused(model: Model) -> None:
    shy, honest = (Workspace(data=normal(model).data, threads=1, stopwatch=one) for one in (Shy(), Watch()))
    least = least_share(model, honest, 0.01)
    assert least_share(model, shy, 0.01) == pytest.approx(least, abs=0.02)
    made, _ = factored(model, f"latency={least + 0.02:.3f}", shy)
    assert share(made, model) <= least + 0.03


def least_share(model: Model, used: Workspace, wanted: float) -> float:
    with pytest.raises(UsageError, match="of today's latency on clockwork stay") as caught:
        factored(model, f"latency={wanted:.3f}", used)
    return float(re.findall(r"at least (\S+) of", caught.value.what)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "was not told how small"),
        ("macs=0.5 rank=3", "macs and rank are both given"),
        ("macs=1.5", "macs must be between 0 and 1, not 1.5"),
        ("rank=0", "rank must be at least 1, not 0"),
        ("rank=4000 method=tucker2", "no layer has a rank of 4000: the largest is 24"),
        ("macs=0.01", r"the budget macs=0\.01 cannot be reached: at least 0\.\d+ of today's MACs stay"),
        ("macs=0.5 skip=nothing", "the pattern 'nothing' matches nothing"),
        ("macs=0.5 method=svdd", "there is no method 'svdd'"),
        ("macs=0.5 data=photos", "no data set named 'photos'"),
        ("macs=0.5 multiple=0", "multiple must be at least 1, not 0"),
    ],
)
def test_misuse(model: Model, options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        factored(model, options)


class ComputedBias(nn.Module):
    """A convolution whose bias depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shift = nn.Conv2d(8, 16, 3, bias=False), nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.conv.weight, self.shift(x.mean((2, 3)))[0])


def test_a_layer_whose_fit_fails_says_so_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp, "_MOST_CANCELLATION", -1.0)
    _, outcome = factored(model, "rank=2 method=cp only=wide")
    assert [s.reason for s in outcome.skipped if s.origin == "wide"] == [
        "cp of rank 2 is degenerate: its terms grow without bound and cancel each other"
    ]


def test_a_bias_that_depends_on_the_image_is_no_constant() -> None:
    model = from_module(ComputedBias().eval(), torch.randn(1, 8, 12, 12))
    _, outcome = factored(model, "rank=4 method=channel-svd", normal(model))
    assert not outcome.changed
    assert "its bias is computed in the graph" in {skip.reason for skip in outcome.skipped}


def zeros() -> nn.Module:
    layer = nn.Conv2d(8, 16, 3)
    nn.init.zeros_(layer.weight)
    return layer


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("method", ["auto", "cp"])
@pytest.mark.parametrize("first", [zeros(), nn.Conv2d(8, 16, 3, dilation=5)], ids=["zeros", "dilation"])
def test_weights_of_zeros_and_windows_with_holes(first: nn.Module, method: str, with_data: bool) -> None:
    model = from_module(nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 1)).eval(), torch.randn(1, 8, 12, 12))
    made, _ = factored(model, f"macs=0.6 method={method}", normal(model) if with_data else None)
    assert share(made, model) <= 0.6


def test_holes_in_a_window_make_no_difference_to_the_error_by_weights() -> None:
    def table(dilation: int) -> tuple[object, ...]:
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 16, 3, padding=dilation, dilation=dilation)
        model = from_module(layer.eval(), torch.randn(1, 8, 24, 24))
        return factored(model, "rank=4 method=tucker2")[1].tables[0].rows[0][1:3]

    assert table(1) == table(12)


def test_an_output_of_one_number_is_compared_with_itself() -> None:
    assert float(relative_error([torch.tensor([[3.0]])], [torch.tensor([[2.0]])])) == 0.25


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((1, 3, 12, 12), np.nan, np.float32), "has NaN or infinity in it"),
        (np.full((1, 3, 12, 12), 1e30, np.float32), "has no covariance"),
        (np.zeros((1, 3, 11, 12), np.float32), r"the images of 'calib' are f32\[.*\], and the model takes f32"),
    ],
)
def test_data_that_do_not_serve(model: Model, image: np.ndarray, message: str) -> None:
    used = Workspace(data={"calib": lambda: [(image, None)] * 8}, threads=1)
    with pytest.raises(LvcError, match=message):
        factored(model, "macs=0.7", used)


def test_a_trained_network_keeps_its_accuracy(assets: Path) -> None:
    model = network(assets, "resnet20")
    data, test = images(assets, "train400", every=4), images(assets, "test2000", every=8)
    used = Workspace(data={"calib": lambda: data, "judge": lambda: data}, threads=1)
    made, _ = factored(model, "macs=0.6 method=tucker2", used)
    assert share(made, model) <= 0.6
    assert accuracy(model, test) - accuracy(made, test) < 0.05


class Cold(Watch):
    """Whole models take three times what their kernels take by themselves."""

    def layers(self, model: Model) -> dict[str, float]:
        found = super().layers(model)
        return found if model.name == "kernels" else {place: 3 * seconds for place, seconds in found.items()}


def test_kernels_count_in_proportion_to_what_their_layer_takes_in_the_model(model: Model) -> None:
    node = next(calls(model.module.graph, *LAYERS))
    layer = layer_of(model.module, node)
    outline = METHODS.parse("channel-svd").outline(layer.kernel, (4,))
    macs = 12 * 12 * 3 * 9 * 16, 12 * 12 * (3 * 9 * 4 + 4 * 16)
    times = KernelTimes(Cold(), model)
    assert times.measure(layer, [[layer.kernel], outline]) == pytest.approx([3 * count / 1e6 for count in macs])
    assert times.whole == pytest.approx(3 * totals(layers(model)).macs / 1e6)

"""Where to prune is judged by what the scores say, and the account of it by what was truly cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from pruning_models import Residual, workspace
from torch import nn

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channel_groups import ChannelGroup, channel_groups
from lvc.passes.pruning.criterion import parse_criterion
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.loss import random_projection
from lvc.passes.pruning.scores import score
from lvc.passes.pruning.sensitivity import Curve


def prune(options: str, model: Model, used: Workspace | None = None) -> tuple[Model, Outcome]:
    text = f"prune-channels{{{options}}}"
    pruned, (step,) = Pipeline.parse(text).run(model, used or Workspace(threads=1))
    return pruned, step.outcome


def steep(closing: nn.Module) -> Model:
    """A classifier whose scores are so far apart that probabilities of them are 0 and 1."""
    torch.manual_seed(0)
    network = Residual()
    network.head.weight.data *= 200
    return from_module(nn.Sequential(network, closing).eval(), torch.zeros(2, 3, 8, 8))


def sizes(model: Model) -> dict[str, tuple[int, ...]]:
    return {str(n.target): spec(n).shape for n in model.module.graph.nodes if n.op == "get_attr"}


@pytest.mark.parametrize("closing", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_closing_function_does_not_say_where_to_prune(closing: nn.Module) -> None:
    plain, closed = steep(nn.Identity()), steep(closing)
    wanted, _ = prune("macs=0.6", plain, workspace(plain))
    found, _ = prune("macs=0.6", closed, workspace(closed))
    assert sizes(found) == sizes(wanted) != sizes(plain)
    image = np.random.default_rng(1).uniform(-2, 2, (2, 3, 8, 8)).astype(np.float32)
    assert found(image)[0] == pytest.approx(closing(torch.from_numpy(wanted(image)[0])).numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("criterion", ["taylor", "output-error"])
def test_criteria_see_the_scores(criterion: str) -> None:
    """The loss on labels is the cross-entropy of scores, and probabilities are none."""
    found = []
    for closing in (nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1)):
        model = steep(closing)
        evidence = Evidence(model, channel_groups(model), Calibration.read(model, workspace(model), "calib"))
        found.append(score(evidence.channels.free, parse_criterion(criterion), evidence).known)
    plain, *closed = found
    assert len(plain) == 3
    for name, scores in plain.items():
        assert all(torch.equal(other[name], scores) for other in closed)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 2, 2), (1, 5)])
def test_each_image_counts_alike(shape: tuple[int, ...]) -> None:
    """An image whose outputs are larger is no more in a projection, nor does it weigh on the others."""
    scale = torch.tensor([1.0, 100.0, 0.01])[: shape[0]].view(-1, *[1] * (len(shape) - 1))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    slopes = []
    for factor in (torch.ones_like(scale), scale):
        outputs = (values * factor).requires_grad_()
        projection = random_projection([outputs], torch.Generator().manual_seed(0))
        slopes.append(torch.autograd.grad(projection, outputs)[0] * factor)
    assert torch.allclose(*slopes, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1)])
def test_single_numbers_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    outputs = torch.full(shape, 3.0, requires_grad=True)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    projection = random_projection([outputs], torch.Generator().manual_seed(0))
    assert torch.equal(torch.autograd.grad(projection, outputs)[0], drawn)


@pytest.mark.parametrize("closing", [nn.Softmax(1), nn.Sigmoid()])
def test_curves_of_sensitivity_are_those_of_the_scores(closing: nn.Module) -> None:
    tables = []
    for model in (steep(nn.Identity()), steep(closing)):
        _, (step,) = Pipeline.parse("prune-sensitivity{ratios=0.5}").run(model, workspace(model))
        tables.append([row[1:] for row in step.outcome.tables[0].rows])
    assert tables[0] == tables[1]


def misled(
    groups: Sequence[ChannelGroup], scores: Mapping[str, torch.Tensor], evidence: Evidence, *, reconstruct: bool
) -> dict[str, Curve]:
    """Curves that say that the first group costs nothing."""
    return {g.name: Curve((g.size - 1,), (1e-9 if g is groups[0] else 1e3,)) for g in groups}


def test_a_sensitivity_that_misleads_gives_way_to_equal_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    model = steep(nn.Identity())
    used = workspace(model, images=20)
    equal, _ = prune("macs=0.6 ranking=layer", model, used)
    monkeypatch.setattr("lvc.passes.prune_channels.measure_curves", misled)
    kept, outcome = prune("macs=0.6 steps=1", model, used)
    assert sizes(kept) == sizes(equal)
    (note,) = (note for note in outcome.notes if note.startswith("outputs by ranking: sensitivity "))
    assert note.endswith("over 4 images held out from 'calib'; kept ranking=layer")
    told = [float(part.split()[-2]) for part in note.split(" over ")[0].split(",")]
    assert told[0] < told[1]
    forced, outcome = prune("macs=0.6 ranking=sensitivity", model, used)
    assert sizes(forced) != sizes(equal)
    assert not any("by ranking" in note for note in outcome.notes)


def test_a_second_way_that_is_too_dear_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvc.passes.pruning.trials.MOST_MACS", 1e3)
    _, outcome = prune("macs=0.6", steep(nn.Identity()), workspace(steep(nn.Identity())))
    assert any(note.startswith("not compared with ranking=layer, which may be better") for note in outcome.notes)


class Shuffled(nn.Module):
    """Blocks that shuffle channels and work on every second of them, as those of ShuffleNetV2 do."""

    def __init__(self, half: int, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2 * half, 1)
        self.branch = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1) for _ in range(blocks))
        self.last = nn.Conv2d(2 * half, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for conv in self.branch:
            b, c, h, w = x.shape
            y = x.reshape(b * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
            x = torch.cat([y[0], torch.relu(conv(y[1]))], 1)
        return self.last(x)


def shuffled(half: int) -> Model:
    torch.manual_seed(0)
    return from_module(Shuffled(half).eval(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(("half", "share"), [(3, 0.8), (4, 0.6), (6, 0.6), (8, 0.6)])
def test_shuffled_channels_are_pruned_with_data_as_without(half: int, share: float) -> None:
    """Of some groups only one unit is there, which stays."""
    model = shuffled(half)
    for used in (workspace(model), None):
        pruned, _ = prune(f"macs={share}", model, used)
        assert totals(layers(pruned)).macs <= share * totals(layers(model)).macs


@pytest.mark.parametrize("with_data", [True, False])
def test_shuffled_channels_that_hang_together_are_said_to(with_data: bool) -> None:
    model = shuffled(3)
    with pytest.raises(UsageError, match=r"macs=0\.6 cannot be reached: at least 0\.783 of today's MACs stay"):
        prune("macs=0.6", model, workspace(model) if with_data else None)


class Viewed(nn.Module):
    """Channels seen as three dimensions, turned: a unit is four channels, and the one left is four units."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1, bias=False)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        y = torch.relu(self.first(x)).view(b, 2, 2, 2, h * w).permute(0, 3, 2, 1, 4)
        return self.last(y.reshape(b, 8, h, w))


def test_a_group_is_as_narrow_as_its_channels() -> None:
    torch.manual_seed(0)
    pruned, outcome = prune("macs=0.65 keep=0", from_module(Viewed().eval(), torch.zeros(1, 3, 4, 4)))
    assert sizes(pruned)["first.weight"] == (4, 3, 1, 1)
    (note,) = (note for note in outcome.notes if "narrowed" in note)
    assert note.startswith("1 of 1 groups narrowed; MACs 896 -> 448 (0.500x)")
    assert outcome.changed == ["conv2d"]
    assert outcome.tables[1].rows == (("first", 8, 4),)

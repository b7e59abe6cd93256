"""Each criterion gives the scores that its formula says, on weights and data made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pruning_models import chain, workspace

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channel_groups import channel_groups
from lvc.passes.pruning.criterion import CRITERIA, Needs, parse_criterion
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.histogram import entropy
from lvc.passes.pruning.scores import score

WEIGHTS = [[1.0, 0.0], [3.0, -4.0], [2.0, 1.0], [0.0, 0.5]]
UNREAD = [[1.0, 0.0, 2.0, 1.0], [0.5, 0.0, -2.0, 1.0], [-1.0, 0.0, 1.0, 2.0]]
"""A second layer that does not look at the second unit."""


def judge(
    text: str,
    model: Model,
    *,
    reduction: str = "first",
    normalise: str = "none",
    low: float = -2.0,
    seed: int = 0,
) -> list[float]:
    data = Calibration.read(model, workspace(model, low=low), "calib")
    channels = channel_groups(model)
    (group,) = channels.free
    evidence = Evidence(model, channels, data, seed)
    found = score((group,), parse_criterion(text), evidence, reduction, normalise).known  # type: ignore[arg-type]
    return [float(value) for value in found[group.name]]


def set_tensor(model: Model, ending: str, values: list[float]) -> None:
    name = next(str(n.target) for n in model.module.graph.nodes if n.op == "get_attr" and n.target.endswith(ending))
    model.module.get_parameter(name).data = torch.tensor(values)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("l1", [1, 7, 3, 0.5]),
        ("l2", [1, 5, 5**0.5, 0.5]),
        ("lp{p=3}", [1, 91 ** (1 / 3), 9 ** (1 / 3), 0.5]),
        ("lamp", [1 / 31, 1, 5 / 30, 0.25 / 31.25]),
    ],
)
def test_magnitudes(text: str, wanted: list[float]) -> None:
    assert judge(text, chain(WEIGHTS)) == pytest.approx(wanted)


def test_reductions_join_the_layers_that_make_and_read_a_unit() -> None:
    second = [[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 3.0]]
    made, read = [1.0, 7.0, 3.0, 0.5], [3.0, 6.0, 0.0, 3.0]
    model = chain(WEIGHTS, second)
    pairs = list(zip(made, read, strict=True))
    assert judge("l1", model, reduction="sum") == pytest.approx([a + b for a, b in pairs])
    assert judge("l1", model, reduction="mean") == pytest.approx([(a + b) / 2 for a, b in pairs])
    assert judge("l1", model, reduction="max") == pytest.approx([max(pair) for pair in pairs])
    assert judge("l1", model, reduction="min") == pytest.approx([min(pair) for pair in pairs])


def test_scores_that_mean_nothing_elsewhere_are_compared_by_their_mean() -> None:
    model = chain(WEIGHTS)
    mean = sum([1, 7, 3, 0.5]) / 4
    assert judge("l1", model, normalise="auto") == pytest.approx([score / mean for score in (1, 7, 3, 0.5)])
    assert judge("lamp", model, normalise="auto") == judge("lamp", model)
    assert judge("taylor", model, normalise="auto") == judge("taylor", model)


def test_batch_norm_scale() -> None:
    model = chain(WEIGHTS)
    set_tensor(model, "norm.weight", [0.4, -0.1, 0.3, 0.2])
    assert judge("batch-norm-scale", model) == pytest.approx([0.4, 0.1, 0.3, 0.2])


def test_the_filter_in_the_middle_is_the_least() -> None:
    found = judge("geometric-median", chain([[0.0], [1.0], [2.0], [3.0], [10.0]]))
    assert found == pytest.approx([16, 13, 12, 13, 34])


def test_equal_weights_have_no_entropy() -> None:
    found = judge("weight-entropy", chain([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 3.0, 3.0]]))
    assert found == pytest.approx([0, math.log(4), math.log(2)])


def test_entropy_of_bins() -> None:
    rows = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    assert entropy(rows, 4).tolist() == pytest.approx([0.693147, 0.0, 1.386294], abs=1e-6)


def test_a_unit_that_never_fires_is_the_least() -> None:
    model = chain([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0]])
    mean = judge("activation-mean", model, low=0.1)
    assert mean[1] == 0
    assert mean[0] > mean[2] > 0
    assert judge("apoz", model, low=0.1) == pytest.approx([1, 0, 1])
    entropies = judge("activation-entropy", model, low=0.1)
    assert entropies[1] == 0
    assert min(entropies[0], entropies[2]) > 1


def test_gates_are_differentiated_as_by_hand() -> None:
    model = chain(WEIGHTS, UNREAD)
    data = Calibration.read(model, workspace(model), "calib")
    assert data.labels
    tensors = {str(n.target): n for n in model.module.graph.nodes if n.op == "get_attr"}
    first, second = (
        model.module.get_parameter(n).detach() for n in tensors if n.endswith(("first.weight", "second.weight"))
    )
    bias = model.module.get_parameter(next(n for n in tensors if n.endswith("second.bias"))).detach()
    x, labels = torch.cat(data.inputs), torch.cat(data.labels)
    gate = torch.ones(len(x), 4, requires_grad=True)
    act = torch.relu(torch.nn.functional.conv2d(x, first) * (1 + 1e-5) ** -0.5) * gate[:, :, None, None]
    scores = torch.nn.functional.conv2d(act, second, bias).mean((2, 3))
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels, reduction="sum"), gate)
    assert judge("taylor", model) == pytest.approx(slope.abs().mean(0).tolist(), rel=1e-4)
    assert judge("fisher", model) == pytest.approx((slope.square().mean(0) / 2).tolist(), rel=1e-4)


@pytest.mark.parametrize("text", ["taylor", "fisher", "gradient", "output-error"])
def test_a_unit_that_nothing_reads_costs_nothing(text: str) -> None:
    found = judge(text, chain(WEIGHTS, UNREAD))
    assert found[1] == pytest.approx(0, abs=1e-12)
    assert min(found[0], found[2], found[3]) > 1e-6


def test_curvature_of_the_loss() -> None:
    """The reading weights of a unit that never fires do not bend the loss; those of one that fires do."""
    model = chain([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0]])
    found = judge("obd{}", model, low=0.1, reduction="sum")
    assert found[1] == pytest.approx(0, abs=1e-12)
    assert min(found[0], found[2]) > 0


def test_a_twin_goes_first_since_the_other_makes_up_for_it() -> None:
    found = judge("output-error", chain([[1.0, 2.0], [2.0, -1.0], [0.5, 1.0], [1.0, -2.0]]))
    order = torch.tensor(found).argsort().tolist()
    assert order[0] in (0, 2)
    assert order[1] not in (0, 2)
    assert min(found) < 0.05 * sorted(found)[1]


def test_gates_learn_to_close_what_nothing_reads() -> None:
    found = judge("channel-attention{epochs=20}", chain(WEIGHTS, UNREAD))
    assert found[1] < 0.5 * found[2]
    assert all(0 < value < 1 for value in found)


def test_random_numbers_are_those_of_the_seed() -> None:
    model = chain(WEIGHTS)
    assert judge("random", model, seed=1) == judge("random", model, seed=1) != judge("random", model, seed=2)


@pytest.mark.parametrize("name", CRITERIA.names())
def test_every_criterion_is_found_and_documented(name: str) -> None:
    kind = CRITERIA.find(name)
    assert kind
    assert kind.name == name
    assert len(kind.summary()) > 20
    assert len((kind.__doc__ or "").splitlines()) > 3
    assert all(field.metadata["help"] for field in kind.options())
    assert kind.needs in Needs
    assert parse_criterion(str(parse_criterion(name))) == kind()


@pytest.mark.parametrize(
    ("text", "what", "help"),
    [
        ("tailor", "there is no criterion 'tailor'", "did you mean 'taylor'"),
        ("lp{q=2}", "lp has no option 'q'", ""),
        ("lp{p=0}", "p must be a number above 0", ""),
        ("l1,l2", "nothing can follow the criterion", ""),
        ("nowhere.py:Mine", "there is no file 'nowhere.py'", ""),
    ],
)
def test_mistakes(text: str, what: str, help: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_criterion(text)
    assert what in caught.value.what
    assert help in caught.value.help


def test_a_criterion_out_of_a_file(tmp_path: Path) -> None:
    source = Path(parse_criterion.__code__.co_filename).parents[1] / "criteria" / "l1.py"
    (tmp_path / "mine.py").write_text(source.read_text().replace('"l1"', '"mine"'))
    assert judge(f"{tmp_path}/mine.py:L1", chain(WEIGHTS)) == pytest.approx([1, 7, 3, 0.5])

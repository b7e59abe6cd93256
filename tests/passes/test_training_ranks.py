"""Several processes train to what one process comes to: shares of batches, statistics, losses, and what is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from threaded_ranks import together
from training_models import Pictures, network, weights, workspace

from lvc.compiler.data.access import access
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, set_argument
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.evaluation import evaluate
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.finetune import Finetune
from lvc.passes.training.augmentation import Augmentation
from lvc.passes.training.division import Dropout, Normalisation
from lvc.passes.training.feed import Feed, Mixing

QUANTISED = "insert-fake-quant,calibrate"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def certain(model: Model) -> Model:
    """A model that draws nothing: ranks that are threads share one stream of random numbers."""
    for node in calls(model.module.graph, aten.dropout.default):
        set_argument(node, "p", 0.0)
    model.module.recompile()
    return model


def trained(text: str, model: Model, space: Workspace, ranks: Ranks) -> tuple[dict[str, torch.Tensor], list[str]]:
    made, steps = Pipeline.parse(text).run(model, replace(space, ranks=ranks))
    return weights(made), steps[-1].outcome.notes


def numbers(notes: list[str]) -> list[float]:
    """All numbers of some notes: what images held out say of a model among them."""
    return [float(text) for note in notes for text in re.findall(r"\d+(?:\.\d+)?", note)]


def assert_same_training(text: str, model: Model, space: Workspace, count: int = 2) -> None:
    alone, notes = trained(text, model, space, ALONE)
    for found, told in together(count, lambda ranks: trained(text, model, space, ranks)):
        assert numbers(told) == pytest.approx(numbers(notes), rel=2e-3)
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("", 2),
        ("", 4),
        ("micro=8", 2),
        ("batch_norm=freeze", 2),
        ("optimiser=adamw lr=0.01", 2),
        ("average=0.9 clip=0.5 keep=best every=2", 2),
        ("group_lasso=0.001 slimming=0.001", 2),
    ],
)
def test_several_processes_finetune_as_one_does(options: str, count: int) -> None:
    lr = "" if "lr=" in options else "lr=0.05"
    text = f"finetune{{steps=6 batch=16 {lr} augment=none precision=fp32 {options}}}"
    assert_same_training(text, certain(network()), workspace(train=Pictures(70)), count)


def test_the_statistics_of_a_batch_are_those_of_all_processes() -> None:
    """With the statistics of shares the running ones would be others, by far more than rounding."""
    text = "finetune{steps=1 batch=16 lr=0.05 augment=none precision=fp32}"
    found = together(2, lambda ranks: trained(text, certain(network()), workspace(), ranks)[0])
    assert torch.equal(found[0]["v"], found[1]["v"])
    alone, _ = trained(text, certain(network()), workspace(), ALONE)
    torch.testing.assert_close(found[0]["v"], alone["v"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("losses", ["soft-labels+labels", "features+attention", "relations+similarity+outputs"])
def test_several_processes_distil_as_one_does(losses: str) -> None:
    """Terms compare images with each other, or divide by the spread over the batch: they need all of it."""
    space = replace(workspace(train=Pictures(70)), original=network(12))
    text = f"distil{{steps=5 batch=16 lr=0.05 augment=none precision=fp32 losses={losses}}}"
    assert_same_training(text, certain(network()), space)


@pytest.mark.parametrize("batch_norm", ["freeze", "train"])
def test_several_processes_distil_by_blocks_as_one_does(batch_norm: str) -> None:
    """The channels of narrower blocks find their partners by the same images."""
    space = replace(workspace(calib=Pictures(70)), original=network(12))
    text = f"distil-blocks{{steps=4 batch=16 lr=0.02 precision=fp32 every=2 keep=last batch_norm={batch_norm}}}"
    assert_same_training(text, certain(network()), space)


@pytest.mark.parametrize("scales", ["learn", "average"])
def test_several_processes_train_quantised_models_as_one_does(scales: str) -> None:
    """Two steps: later a value that lies between two integers may go to either by rounding."""
    quantised, _ = Pipeline.parse(QUANTISED).run(certain(network()), workspace(calib=Pictures(40)))
    text = f"finetune{{steps=2 batch=16 lr=0.02 augment=none scales={scales}}}"
    assert_same_training(text, quantised, workspace(train=Pictures(70)))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("mixing", [Mixing(), Mixing(mixup=0.4), Mixing(mixup=0.4, cutmix=1.0)])
def test_shares_are_drawn_as_the_whole_batch_is(mixing: Mixing, count: int) -> None:
    samples = access(Pictures(40))

    def parts(ranks: Ranks, step: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        augmentation = Augmentation.of(("crop", "flip"), (8, 8), has_pictures=False)
        feed = Feed(samples, Fit.of(network().inputs), augmentation, mixing, 12, 6, 4, 5, 1, ranks)
        with feed.randomness():
            return list(feed.parts(step))

    for step in (0, 4):
        whole = parts(ALONE, step)
        shares = [parts(Ranks(rank, count), step) for rank in range(count)]
        for place, (inputs, targets) in enumerate(whole):
            assert torch.equal(torch.cat([share[place][0] for share in shares]), inputs)
            found = [aims for share in shares if (aims := share[place][1]) is not None]
            assert targets is not None
            assert torch.equal(torch.cat(found), targets)
    assert not torch.equal(parts(ALONE, 0)[0][0], parts(ALONE, 3)[0][0])


def test_dropout_drops_what_it_drops_of_the_whole_batch() -> None:
    x = torch.rand(8, 50) + 1

    def dropped(ranks: Ranks, share: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        made: torch.Tensor = Dropout(0.3, ranks)(share)
        return made

    whole = dropped(ALONE, x)
    assert 0.2 < float((whole == 0).float().mean()) < 0.4
    torch.testing.assert_close(whole[whole != 0], (x / 0.7)[whole != 0])
    assert torch.equal(torch.cat([dropped(Ranks(rank, 2), x[4 * rank :][:4]) for rank in range(2)]), whole)


@pytest.mark.parametrize("has_weights", [True, False])
def test_normalisation_over_processes_is_that_of_pytorch(has_weights: bool) -> None:
    x, aim = torch.randn(8, 3, 4, 4) * 3 + 50, torch.randn(8, 3, 4, 4)  # a mean that is large beside the spread

    def normalised(ranks: Ranks) -> list[torch.Tensor]:
        own = ranks.share(8)
        given = x[own.start : own.stop].clone().requires_grad_()
        scale, shift = (torch.full((3,), value, requires_grad=True) for value in (1.5, 0.2))
        mean, variance = torch.zeros(3), torch.ones(3)
        weight, bias = (scale, shift) if has_weights else (None, None)
        if ranks.count == 1:
            y = aten.batch_norm.default(given, weight, bias, mean, variance, True, 0.1, 1e-5, True)
        else:
            y = Normalisation(0.1, 1e-5, ranks)(given, weight, bias, mean, variance)
        (y * aim[own.start : own.stop]).sum().backward()
        gradients = [ranks.sum(value.grad) for value in (scale, shift) if value.grad is not None]
        assert given.grad is not None
        return [ranks.gather(y), ranks.gather(given.grad), mean, variance, *gradients]

    expected = normalised(ALONE)
    for found in together(2, normalised):
        assert len(found) == len(expected) == (6 if has_weights else 4)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_divided_alike_is_refused() -> None:
    with pytest.raises(UsageError, match="16 images at once are not to be divided over 3 processes") as error:
        Finetune(batch=16).images_at_once(Ranks(0, 3))
    assert "batch=15" in error.value.help


def test_processes_that_see_other_images_are_told() -> None:
    def run(ranks: Ranks) -> None:
        trained("finetune{steps=2 batch=8}", network(), workspace(train=Pictures(40 + 10 * ranks.rank)), ranks)

    with pytest.raises(UsageError, match="processes 0 and 1 see other images"):
        together(2, run)


@pytest.mark.parametrize("estimator", ["mse", "min-max", "moving-average{batch=8}", "percentile"])
def test_several_processes_calibrate_as_one_does(estimator: str) -> None:
    text = f'insert-fake-quant,calibrate{{estimator="{estimator}" compare=30}}'

    def calibrated(ranks: Ranks) -> tuple[str, list[str]]:
        made, steps = Pipeline.parse(text).run(network(), replace(workspace(calib=Pictures(60)), ranks=ranks))
        return made.to_text(), steps[-1].outcome.notes

    expected = calibrated(ALONE)
    found = together(2, calibrated)
    assert found[0] == expected  # the leading process alone compares outputs
    assert found[1][0] == expected[0]


def test_several_processes_analyse_sensitivity_as_one_does() -> None:
    def rows(ranks: Ranks) -> object:
        text = "prune-sensitivity{ratios=0.3,0.5,0.7 criterion=l1}"
        _, (step,) = Pipeline.parse(text).run(network(), replace(workspace(calib=Pictures(30)), ranks=ranks))
        return step.outcome.tables

    expected = rows(ALONE)
    assert together(2, rows) == [expected, expected]


@pytest.mark.parametrize("images", [1, 30])
def test_several_processes_evaluate_as_one_does(images: int) -> None:
    model, data = network(), Pictures(images)
    expected = evaluate(model, data, 1, against=model)
    assert (expected.images, expected.agreed) == (images, images)
    assert together(2, lambda ranks: evaluate(model, data, 1, against=model, ranks=ranks)) == [expected, expected]

"""Sparsifying zeroes the least weights, says what it did, and claims no speed."""

from __future__ import annotations

import pytest
import torch
from pruning_models import chain, residual

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import calls, origin, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.sparsify import largest_of


def sparsify(options: str, model: Model) -> tuple[dict[str, torch.Tensor], Outcome]:
    made, (step,) = Pipeline.parse(f"sparsify{{{options}}}").run(model)
    weights = {}
    for node in calls(made.module.graph):
        weight = tensor(made.module, node.args[1]) if len(node.args) > 1 else None
        if weight is not None and weight.ndim > 1:
            weights[origin(node)] = weight.detach()
    return weights, step.outcome


def test_the_least_weights_of_each_layer_go() -> None:
    weights, outcome = sparsify("ratio=0.5", chain([[1.0, -2.0], [0.5, 4.0]]))
    assert weights["first"].flatten().tolist() == [0, -2, 0, 4]
    assert int((weights["second"] == 0).sum()) == 3
    assert len(outcome.changed) == 2
    assert "50.0 % of 10 weights are zero" in outcome.notes[0]
    assert "not faster" in outcome.notes[0]


def test_layers_compare_on_request() -> None:
    weights, _ = sparsify("ratio=0.5 ranking=global", chain([[10.0, -20.0], [5.0, 40.0]]))
    assert int((weights["first"] == 0).sum()) == 0
    assert int((weights["second"] == 0).sum()) == 5


def test_a_threshold_and_names_to_skip() -> None:
    weights, outcome = sparsify("threshold=1.5 skip=second", chain([[1.0, -2.0], [0.5, 4.0]]))
    assert weights["first"].flatten().tolist() == [0, -2, 0, 4]
    assert bool((weights["second"] != 0).all())
    assert [skip.reason for skip in outcome.skipped] == ["skip=second leaves it out"]


def test_two_of_four_along_the_input_channels() -> None:
    weights, outcome = sparsify("pattern=2:4", residual())
    runs = weights["inner.0"].movedim(1, -1).reshape(-1, 4)
    assert bool(((runs == 0).sum(1) == 2).all())
    assert bool((weights["stem.0"] != 0).all())
    assert [skip.reason for skip in outcome.skipped] == ["it reads 3 channels, which is no multiple of 4"]


def test_the_largest_of_each_run_stay() -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.5, 9.0, 8.0, 7.0, -10.0]])
    assert largest_of(weight, 1, 2, 4).tolist() == [  # type: ignore[union-attr]
        [False, True, True, False, True, False, False, True]
    ]


def test_compressed_it_is_smaller() -> None:
    _, outcome = sparsify("ratio=0.9", residual())
    after, before = outcome.notes[0].partition(", before ")[0].rpartition("take ")[2], outcome.notes[0]
    assert float(after.split()[0]) < 0.5 * float(before.partition(", before ")[2].split()[0])


def test_a_second_run_changes_nothing() -> None:
    once, _ = Pipeline.parse("sparsify{ratio=0.5}").run(residual())
    _, (step,) = Pipeline.parse("sparsify{ratio=0.5}").run(once)
    assert step.outcome.places == 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("", "was not told what"),
        ("ratio=1", "ratio must be between 0 and 1"),
        ("threshold=0", "threshold must be above 0"),
        ("pattern=4:2", "is not a pattern N:M"),
        ("ratio=0.5 threshold=1", "ratio and threshold are both given"),
        ("ratio=0.5 skip=third", "the pattern 'third' matches nothing"),
    ],
)
def test_misuse(options: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        sparsify(options, chain([[1.0]]))

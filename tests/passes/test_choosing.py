"""Passes that mend layers keep what images held out from them find better, and say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from calibration_data import Images

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.quantisation.choosing import Choice, Form
from lvc.passes.quantisation.judging import Judging, most_images
from lvc.passes.quantisation.layerwise import find, set_weight, stored_weight

TWO_LAYERS = parse_model("""
    model two(x: f32[1,3,8,8])
      @a.weight : f32[6,3,3,3]
      @a.bias : f32[6]
      @b.weight : f32[5,6,3,3]
      %a = conv2d(%x, @a.weight, @a.bias)
      %relu = relu(%a)
      %b = conv2d(%relu, @b.weight)
      return out=%b
""")
CLASSIFIER = parse_model("""
    model classifier(x: f32[1,4])
      @w : f32[3,4]
      %scores = linear(%x, @w)
      %y = softmax(%scores, 1)
      return out=%y
""")
QUANTISE = "insert-fake-quant{weight_bits=4},calibrate"


def images(count: int, shift: float = 0.0, model: Model = TWO_LAYERS) -> Images:
    random = np.random.default_rng(count)
    shape = model.inputs[0].spec.shape
    return Images([(random.standard_normal(shape) + shift).astype(np.float32) for _ in range(count)])


def workspace(calib: Images, judge: Images | None = None) -> Workspace:
    given = {"calib": calib} | ({"judge": judge} if judge else {})
    return Workspace(data={name: lambda data=data: data for name, data in given.items()}, threads=1)  # type: ignore[misc]


def run(last: str, space: Workspace, model: Model = TWO_LAYERS) -> tuple[Model, Model, Outcome]:
    """The model before the last pass, the one behind it, and what the pass says."""
    before, _ = Pipeline.parse(QUANTISE).run(model, space)
    after, steps = Pipeline.parse(last).run(before, space)
    return before, after, steps[-1].outcome


def weights(model: Model) -> list[torch.Tensor]:
    return [stored_weight(model, find(model, name)) for name in ("a", "b")]


def are_equal(model: Model, other: Model) -> bool:
    return all(torch.equal(*pair) for pair in zip(weights(model), weights(other), strict=True))


def test_corrections_that_other_images_speak_against_are_taken_back() -> None:
    calib = images(12, shift=2.0)
    calib.arrays[0][:] *= -2  # so that the range holds the values of all
    space = workspace(calib, images(12, shift=-2.0))
    before, after, outcome = run("correct-bias", space)
    assert outcome.changed == []
    assert outcome.notes[0].startswith("kept as it was: ")
    assert "of 'judge'" in outcome.notes[0]
    assert after.to_text() == before.to_text()
    _, always, outcome = run("correct-bias{always=true}", space)
    assert outcome.changed == ["a", "b"]
    assert always.to_text() != before.to_text()


def test_the_better_of_two_roundings_is_kept() -> None:
    before, after, outcome = run("round-weights", workspace(images(64)))
    assert outcome.changed == ["a", "b"]
    assert outcome.notes[0].startswith("kept with rounded weights: ")
    assert "held out from 'calib'" in outcome.notes[0]
    assert not are_equal(before, after)
    found = {str(row[0]): float(row[1]) for row in outcome.tables[0].rows}
    assert found["with rounded weights"] > max(found["as it was"], found["with corrected biases"])


def test_rounding_to_odd_images_is_taken_back() -> None:
    """Weights that were fitted to images of one channel serve no others; the form is then that of the fast preset."""
    odd = images(64)
    for array in odd.arrays:
        array[:, 1:] = 0
    space = workspace(odd, images(32))
    before, after, outcome = run("round-weights", space)
    assert "kept with rounded weights" not in outcome.notes[0]
    assert are_equal(before, after)
    _, fast, _ = run("correct-bias{images=64}", space)
    assert "kept with corrected biases" in outcome.notes[0]
    x = images(3).arrays[0]
    np.testing.assert_array_equal(after(x)[0], fast(x)[0])


def test_few_images_correct_biases_and_round_nothing() -> None:
    space = workspace(images(12))
    before, after, outcome = run("round-weights", space)
    assert outcome.notes[0].startswith("fewer than 4 images are held out to judge by, so rounding weights is left out")
    assert are_equal(before, after)
    _, rounded, outcome = run("round-weights{always=true}", space)
    assert outcome.changed == ["a", "b"]
    assert not are_equal(before, rounded)


def spoilt(model: Model, by: float, seed: int = 0) -> Model:
    """A copy with an error in its weights."""
    twin = model.copy(share_tensors=True)
    for name in ("a", "b"):
        weight = stored_weight(model, find(model, name))
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        set_weight(twin.module, find(twin, name), weight + by * noise)
    return twin


def test_what_is_fitted_must_be_likely_to_be_nearer() -> None:
    space = workspace(images(64))
    quantised, _ = Pipeline.parse(QUANTISE).run(TWO_LAYERS, space)
    choice = Choice(Judging.open(TWO_LAYERS, quantised, space, "calib"), Form("first", spoilt(quantised, 0.2)))
    choice.try_form(Form("nearer", spoilt(quantised, 0.15), is_fit=False))
    assert choice.best.name == "nearer"
    choice.try_form(Form("fitted, about the same", spoilt(quantised, 0.15, seed=1), is_fit=True))
    gain = choice.judging.gain(choice.tried[-1][1], choice.errors)
    assert (choice.best.name == "fitted, about the same") == gain.is_likely
    choice.try_form(Form("fitted, nearer", spoilt(quantised, 0.05), is_fit=True))
    assert choice.best.name == "fitted, nearer"
    choice.try_form(Form("further", spoilt(quantised, 0.1)))
    assert choice.note.startswith("kept fitted, nearer: ")
    assert choice.note.endswith(" dB further")


def test_a_gain_has_the_error_of_a_mean_of_ratios() -> None:
    """For one output and errors that differ little, the jackknife gives the error of a mean: s / sqrt(n)."""
    random = np.random.default_rng(0)
    before = torch.from_numpy(100 + random.standard_normal((64, 1)))
    after = torch.from_numpy(80 + random.standard_normal((64, 1)))
    judging = Judging([], 64, [], torch.tensor([1e4]).double(), 0, "", is_apart=True)
    gain = judging.gain(after, before)
    assert gain.decibels == pytest.approx(10 * np.log10(100 / 80), abs=0.02)
    relative = np.hypot(before.numpy().std(ddof=1) / 100, after.numpy().std(ddof=1) / 80) / 8
    assert gain.error == pytest.approx(10 / np.log(10) * relative, rel=0.3)
    assert gain.is_likely
    assert judging.gain(before, after).decibels == pytest.approx(-gain.decibels)
    assert judging.gain(after, after).decibels == 0


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_image_counts_once_whatever_the_batch(batch: int) -> None:
    model = parse_model(f"""
        model batch(x: f32[{batch},4])
          @w : f32[3,4]
          %y = linear(%x, @w)
          return out=%y
    """)
    model.module.w.data.copy_(torch.arange(12.0).reshape(3, 4))
    other = model.copy()
    other.module.w.data.add_(0.1)
    judging = Judging.open(model, other, workspace(images(20, model=CLASSIFIER)), "calib")
    assert judging.images == 4
    errors = judging.errors(other)
    assert errors.shape == (4, 1)
    single = errors.sum() / 4
    assert float(judging.decibels(errors)) == pytest.approx(float(10 * (judging.power / 4 / single).log10()), abs=1e-6)


def test_one_row_is_never_enough() -> None:
    judging = Judging([], 1, [], torch.tensor([1e4]).double(), 0, "", is_apart=True)
    assert not judging.gain(torch.tensor([[1.0]]), torch.tensor([[100.0]])).is_likely


def test_outputs_are_judged_in_front_of_softmax() -> None:
    """Behind it nothing moves where it saturates."""
    model = replace(CLASSIFIER, module=CLASSIFIER.copy().module)
    set_weight_of = find(model, "scores").all_input_nodes[1]
    model.module.get_parameter(str(set_weight_of.target)).data.mul_(50)
    twin, _ = Pipeline.parse("insert-fake-quant,calibrate").run(model, workspace(images(20, model=model)))
    judging = Judging.open(model, twin, workspace(images(20, model=model)), "calib")
    assert judging.wanted[0][0].abs().max() > 1
    assert judging.images == 4
    assert judging.decibels(judging.errors(model)) > 100
    assert judging.decibels(judging.errors(twin)) < 60


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 3, 8, 8), 64), ((1, 3, 2048, 2048), 5), ((16, 3, 2048, 2048), 5), ((1, 3, 9999, 9999), 4)]
)
def test_images_to_judge_on_are_bounded_by_their_outputs(shape: tuple[int, ...], count: int) -> None:
    model = parse_model(f"""
        model maps(x: f32[{",".join(map(str, shape))}])
          %y = relu(%x)
          return out=%y
    """)
    assert most_images(model) == count

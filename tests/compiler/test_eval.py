"""Accuracy: what is counted, how batches are filled, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import build, shades

from lvc.compiler.cli import main
from lvc.compiler.data.batches import batches
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.measure.evaluation import Score, best_classes, class_scores, evaluate, probabilities

Labelled = list[tuple[np.ndarray, int | None]]


def one_hot(*classes: int, of: int = 10) -> np.ndarray:
    return np.eye(of, dtype=np.float32)[list(classes)]


def test_score_counts_first_and_first_five() -> None:
    score = Score()
    ranked = np.arange(10, 0, -1, dtype=np.float32)[None]
    for label in (0, 4, 5, None):
        score.add(ranked, [label])
    assert (score.images, score.labelled, score.top1, score.top5) == (4, 3, 1, 2)


def test_equal_scores_prefer_the_lower_class() -> None:
    assert best_classes(np.zeros((1, 4)), 2).tolist() == [[0, 1]]


def test_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="class 10, and the model knows 10 classes"):
        Score().add(one_hot(0), [10])


@pytest.mark.parametrize(("count", "size"), [(5, 1), (5, 2), (4, 2), (1, 8)])
def test_batches_keep_order_and_pad_the_last(count: int, size: int) -> None:
    samples: Labelled = [(np.full((1, 2), index), index) for index in range(count)]
    found = list(batches(samples, size))
    assert [label for _, labels in found for label in labels] == list(range(count))
    for inputs, labels in found:
        assert inputs.shape == (size, 2)
        assert inputs[: len(labels), 0].tolist() == labels
        assert (inputs[len(labels) :] == labels[-1]).all()


class Recorder:
    """A classifier whose class is the first element of its input."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return (one_hot(*inputs[:, 0].astype(int)),)


@pytest.mark.parametrize("batch", [1, 3])
def test_evaluation_counts_true_samples_only(batch: int) -> None:
    data: Labelled = [(np.full((1, 1), label), label if label < 6 else 0) for label in range(8)]
    score = evaluate(Recorder(), data, batch)
    assert (score.images, score.top1, score.agreed) == (8, 6, None)


def test_limit_reads_no_more_than_it_needs() -> None:
    run = Recorder()
    data: Labelled = [(np.full((1, 1), label), label) for label in range(8)]
    assert evaluate(run, data, 2, limit=4).images == 4
    assert run.calls == 2


def test_agreement_with_another_model() -> None:
    data: Labelled = [(np.full((1, 1), label), None) for label in range(4)]
    score = evaluate(Recorder(), data, 1, against=lambda *_: (one_hot(0),))
    assert (score.labelled, score.agreed) == (0, 1)


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="not a classifier"):
        class_scores((np.zeros((1, 3, 4, 4)),), 1)
    with pytest.raises(CheckError, match="NaN"):
        class_scores((np.full((1, 3), np.nan),), 1)
    assert class_scores((np.zeros((2, 3, 1, 1)),), 1).shape == (1, 3)


def test_scores_of_several_crops_of_an_image_are_not_those_of_an_image() -> None:
    data: Labelled = [(np.zeros((1, 1)), 0)]
    with pytest.raises(UsageError, match="not a classifier") as caught:
        evaluate(lambda *_: (np.zeros((4, 3)),), data, 1)
    assert caught.value.why == "its first output is float64[4,3], not scores [1,classes]"


def test_probabilities() -> None:
    shares = np.array([[0.25, 0.75]])
    np.testing.assert_array_equal(probabilities(shares), shares)
    np.testing.assert_allclose(probabilities(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])
    np.testing.assert_allclose(probabilities(np.log(shares)), shares)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of batch 1 and 4, and data of which 5 of 7 images are in the right class."""
    folder = tmp_path_factory.mktemp("eval")
    build(shades(), folder / "one.lvc")
    build(shades(batch=4), folder / "four.lvc")
    build(shades(classes=3), folder / "three.lvc")
    shown = np.array([0, 1, 2, 3, 4, 5, 5], np.uint8)
    images = np.broadcast_to(shown[:, None, None, None], (7, 8, 8, 3))
    np.savez(folder / "data.npz", x=images, y=np.array([0, 1, 2, 3, 4, 0, 1]))
    np.savez(folder / "bare.npz", x=images)
    (folder / "mixed" / "1").mkdir(parents=True)
    for name in ("mixed/a.png", "mixed/1/b.png"):
        Image.fromarray(images[0]).save(folder / name)
    return folder


def lvc_eval(capsys: pytest.CaptureFixture[str], folder: Path, model: str, data: str, *more: str) -> dict[str, object]:
    arguments = ["eval", str(folder / model), "--data", str(folder / data), "--preprocess", "range=255", *more]
    assert main([*arguments, "--json"]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("model", ["one.lvc", "four.lvc"])
def test_command_measures_accuracy(capsys: pytest.CaptureFixture[str], folder: Path, model: str) -> None:
    found = lvc_eval(capsys, folder, model, "data.npz")
    assert (found["images"], found["top1_count"], found["top5_count"]) == (7, 5, 6)
    assert found["top1"] == pytest.approx(5 / 7)


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    path = str(folder / "one.lvc")
    data = str(folder / "data.npz")
    assert main(["eval", path, "--data", data, "--preprocess", "range=255", "--against", path, "--limit", "6"]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines()]
    assert rows[1][:3] == ["top-1", "83.33", "%"]
    assert rows[3] == ["agreement", "100.00", "%", "6", "of", "6"]
    assert "6 images in" in captured.err


def test_command_measures_agreement_without_labels(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = lvc_eval(capsys, folder, "one.lvc", "bare.npz", "--against", str(folder / "three.lvc"))
    assert (found["labelled"], found["top1"]) == (0, None)
    assert found["agreement"] == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("model", "data", "more", "message"),
    [
        ("one.lvc", "bare.npz", (), "have no labels"),
        ("one.lvc", "mixed", (), "1 images lie beside the folders '1'"),
        ("one.lvc", "gone.npz", (), "there is no data set"),
        ("one.lvc", "data.npz", ("--preprocess", "imgenet"), "did you mean 'imagenet'"),
        ("one.lvc", "data.npz", ("--preprocess", "resize=9x9"), "a sample is 1x3x9x9"),
        ("one.lvc", "data.npz", ("--limit", "0"), "not an integer from 1"),
        ("one.lvc", "data.npz", ("--against", "four.lvc"), "take different inputs"),
        ("three.lvc", "data.npz", (), "the model knows 3 classes"),
    ],
)
def test_mistakes_end_in_one_error(
    capsys: pytest.CaptureFixture[str], folder: Path, *, model: str, data: str, more: tuple[str, ...], message: str
) -> None:
    more = tuple(str(folder / text) if text.endswith(".lvc") else text for text in more)
    chosen = () if "--preprocess" in more else ("--preprocess", "range=255")
    assert main(["eval", str(folder / model), "--data", str(folder / data), *chosen, *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("error:") == 1

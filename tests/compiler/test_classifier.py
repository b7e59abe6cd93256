"""Classifiers in PyTorch run many images at once, and choose what they choose for each image alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import shades

from lvc.compiler.cli import main
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.classifier import Classifier, are_close
from lvc.compiler.running.run import Run

COUNT = 150


class Mixes(torch.nn.Module):
    """Scores of an image that depend on the others of its batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) - x.mean((0, 2, 3))


def images(count: int) -> np.ndarray:
    shown = np.random.default_rng(0).uniform(0, 6, (count, 1, 1, 1))
    return np.ascontiguousarray(np.broadcast_to(shown, (count, 3, 8, 8)), np.float32)


def alone(model: Model, inputs: np.ndarray) -> np.ndarray:
    size = model.inputs[0].spec.shape[0]
    return np.concatenate([model(inputs[start : start + size])[0] for start in range(0, len(inputs), size)])


@pytest.mark.parametrize("batch", [1, 2])
def test_many_images_at_once_get_what_each_gets_alone(batch: int) -> None:
    model, inputs = shades(batch=batch), images(6)
    classifier = Classifier(model)
    assert classifier.images > batch
    np.testing.assert_allclose(classifier(inputs)[0], alone(model, inputs), rtol=1e-5)


def test_images_that_mix_run_as_the_signature_says() -> None:
    model = from_module(Mixes(), torch.zeros(1, 3, 8, 8), name="mixes")
    assert Classifier(model).images == 1


def test_choices_that_rounding_could_change_are_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores in a batch are off by less than the bound; halfway between two shades they would be the other's."""
    model = shades()
    inputs = images(6)
    inputs[1], inputs[4] = 2.5, 0.5
    each = Run.each

    def inexact(run: Run, batch: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        parts = each(run, batch)
        wrong = torch.tensor([1, -1, 1, -1, 1, -1]) * (1e-5 if len(parts) > 1 else 0)
        return [(scores + wrong, *others) for scores, *others in parts]

    monkeypatch.setattr(Run, "each", inexact)
    (found,) = Classifier(model)(inputs)
    wanted = alone(model, inputs)
    assert (found.argmax(1) == wanted.argmax(1)).all()
    np.testing.assert_array_equal(found[[1, 4]], wanted[[1, 4]])
    assert (found[[0, 2]] != wanted[[0, 2]]).any()


@pytest.mark.parametrize(
    ("scores", "close"),
    [
        ([9, 1, 1, 1, 1, 0, 0], False),
        ([9, 8.99, 1, 1, 1, 0, 0], True),
        ([9, 1, 1, 1, 1, 0.999, 0], True),
        ([9, 1, 1, 1, 1, 1], True),
        ([9, 1, 1], False),
        ([9, np.nan, 1], True),
        ([np.inf, 1, 1], True),
        ([0, 0, 0], True),
    ],
)
def test_what_is_close(scores: list[float], close: bool) -> None:
    far = [9, 4, 4, 4, 4, 0, 0][: len(scores)]
    assert are_close(np.array([far, scores]), 1e-2) is close


def test_the_command_runs_models_in_batches(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text("from small_models import Shades\n\n\ndef net():\n    return Shades(6)\n")
    shown = np.arange(COUNT, dtype=np.uint8) % 6
    labels = np.where(np.arange(COUNT) < 100, shown, 5 - shown)
    np.savez(tmp_path / "data.npz", x=np.broadcast_to(shown[:, None, None, None], (COUNT, 8, 8, 3)), y=labels)
    sizes: list[int] = []
    each = Run.each
    monkeypatch.setattr(Run, "each", lambda run, batch: sizes.append(len(batch)) or each(run, batch))
    model = [f"{tmp_path / 'net.py'}:net", "--shape", "1x3x8x8", "--preprocess", "range=255"]
    assert main(["eval", *model, "--data", str(tmp_path / "data.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["top1_count"]) == (COUNT, 100)
    assert len(sizes) < COUNT
    assert max(sizes) > 1

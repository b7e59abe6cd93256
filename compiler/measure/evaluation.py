"""How well a classifier does on labelled data, and how often two of them agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np

from lvc.compiler.data.batches import batches
from lvc.compiler.data.samples import Samples
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import DataSet, Progress, Silence

Run = Callable[..., tuple[np.ndarray, ...]]


@dataclass
class Score:
    """Counts over the images that were run: how many had a label, were right, were right within the first five.

    ``agreed`` counts the images on which another model's first choice was the same; None if there was no other.
    """

    images: int = 0
    labelled: int = 0
    top1: int = 0
    top5: int = 0
    agreed: int | None = None
    classes: int = field(default=0, repr=False)

    def add(self, scores: np.ndarray, labels: Sequence[int | None]) -> None:
        """Count a batch of class scores ``[N,C]`` against its labels."""
        self.classes = scores.shape[1]
        for row, label in zip(best_classes(scores, 5), labels, strict=True):
            self.images += 1
            if label is None:
                continue
            if label >= self.classes:
                raise unknown_class(label, self.classes)
            self.labelled += 1
            self.top1 += int(row[0] == label)
            self.top5 += int(label in row)


def unknown_class(label: int, classes: int) -> UsageError:
    """The error for a label that is none of a model's classes."""
    return UsageError(
        f"an image has class {label}, and the model knows {classes} classes, counted from 0",
        help="number the classes of the data as those of the model",
    )


def evaluate(
    run: Run,
    data: DataSet,
    batch: int,
    *,
    against: Run | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Score:
    """Run a classifier over a data set, ``batch`` images at once; the last ones are padded.

    With ``against``, a second classifier runs on the same inputs. Each of the ``ranks`` runs a share of them, and all
    return the score of the whole. `UsageError` if the output is not class scores.
    """
    score = Score(agreed=0 if against else None)
    total = min(len(data), limit) if limit else len(data)
    own = ranks.share(total, batch)
    samples = (progress or Silence()).track(_samples(data, own), "evaluating", len(own))
    for inputs, labels in batches(samples, batch):
        scores = class_scores(run(inputs), len(labels), len(inputs))
        score.add(scores, labels)
        if against and score.agreed is not None:
            others = class_scores(against(inputs), len(labels), len(inputs))
            score.agreed += int((best_classes(scores, 1) == best_classes(others, 1)).sum())
    return _summed([Score(**json.loads(told)) for told in ranks.collect(json.dumps(asdict(score)).encode())])


def _samples(data: DataSet, places: range) -> Iterator[tuple[np.ndarray, int | None]]:
    """The samples at some places; those before them are not read if the form of the data allows that."""
    if not places.start or not isinstance(data, Samples) or data.by_place is None:
        return islice(data, places.start, places.stop)
    samples = data.access()
    targets = ((place, samples.target(place)) for place in samples.places[places.start : places.stop])
    return ((samples.read(place), target if isinstance(target, int) else None) for place, target in targets)


def _summed(scores: Sequence[Score]) -> Score:
    counts = {name: sum(getattr(score, name) for score in scores) for name in ("images", "labelled", "top1", "top5")}
    agreed = None if scores[0].agreed is None else sum(score.agreed or 0 for score in scores)
    return Score(**counts, agreed=agreed, classes=max(score.classes for score in scores))


def in_parts(run: Run, size: int) -> Run:
    """What takes ``size`` images, for any multiple of them; the first output alone."""

    def run_parts(inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.concatenate([run(inputs[start : start + size])[0] for start in range(0, len(inputs), size)]),)

    return run_parts


def class_scores(outputs: Sequence[np.ndarray], count: int, images: int | None = None) -> np.ndarray:
    """Return the scores ``[count,C]`` of a classifier's first output; `UsageError` if it holds no class scores, or not
    those of so many ``images``."""
    scores = outputs[0]
    if not is_class_scores(scores.shape, images):
        found = f"{scores.dtype}[{','.join(map(str, scores.shape))}]"
        wanted = f"[{'N' if images is None else images},classes]"
        raise UsageError("the model is not a classifier", why=f"its first output is {found}, not scores {wanted}")
    scores = scores.reshape(scores.shape[:2])[:count]
    if np.isnan(scores).any():
        raise CheckError("the model's output holds NaN")
    return scores


def best_classes(scores: np.ndarray, most: int) -> np.ndarray:
    """Return the classes of the highest scores, best first, the lower class first among equals."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :most]


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return scores ``[N,C]`` as probabilities: unchanged if none is below 0 and they sum to 1, else by softmax."""
    scores = np.asarray(scores, np.float64)
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))

"""What a classifier chooses over a data set, kept image by image, so that two can be compared afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lvc.compiler.data.batches import batches
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.measure.evaluation import Score, best_classes, class_scores
from lvc.compiler.pipeline.workspace import DataSet, Progress

TOP1, TOP5, AGREEMENT = METRICS = ("top-1", "top-5", "agreement")


@dataclass(frozen=True)
class Choices:
    """``first`` are the first choices ``int64[N]``; the counts are those of the images that have a label."""

    first: np.ndarray
    score: Score

    def share(self, metric: str, original: Choices) -> float:
        """The share of images that are right, or of first choices that are those of ``original``; `UsageError` if no
        image has a label where labels are needed."""
        if metric == AGREEMENT:
            return float((self.first == original.first).mean())
        if not self.score.labelled:
            why = f"without labels there is no {metric}"
            raise UsageError("the images have no labels", why=why, help=f'take metric = "{AGREEMENT}"')
        return (self.score.top1 if metric == TOP1 else self.score.top5) / self.score.labelled


def check_classifies(model: Model) -> None:
    """Raise `UsageError` for a model that makes no choices."""
    images, shape = model.inputs[0].spec.shape[:1], model.outputs[0].spec.shape
    if not is_class_scores(shape, *images):
        found = ", ".join(map(str, model.outputs))
        help = 'bound the signal to noise: max-loss = "20dB"'
        raise UsageError("the model is not a classifier", why=f"its outputs are: {found}", help=help)


def choices_of_model(model: Model, data: DataSet, progress: Progress) -> Choices:
    """Run a graph in PyTorch over a data set, with as many images at once as it likes."""
    from lvc.compiler.measure.classifier import Classifier

    classifier = Classifier(model)
    return _choices(classifier.parts, data, classifier.images, classifier.size, progress)


def choices_of_run(run: Callable[..., tuple[np.ndarray, ...]], size: int, data: DataSet, progress: Progress) -> Choices:
    """Run what takes and returns arrays over a data set, in batches of the size that its signature has."""
    return _choices(lambda inputs: [run(inputs)[0]], data, size, size, progress)


def _choices(
    run: Callable[[np.ndarray], Sequence[np.ndarray]], data: DataSet, batch: int, size: int, progress: Progress
) -> Choices:
    if not len(data):
        raise UsageError("the data set is empty")
    score, first = Score(), []
    for inputs, labels in batches(progress.track(data, "evaluating", len(data)), batch, fill=size):
        for place, part in enumerate(run(inputs)):
            known = labels[place * size : (place + 1) * size]
            if known:
                scores = class_scores([part], len(known), size)
                score.add(scores, known)
                first.append(best_classes(scores, 1)[:, 0])
    return Choices(np.concatenate(first), score)

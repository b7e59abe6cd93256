"""The scores of a classifier for many images at once, which choose what they choose for each image alone."""

from __future__ import annotations

import numpy as np
import torch

from lvc.compiler.data.batches import fed_input
from lvc.compiler.ir.batching.proof import rounding_bound
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.running.batches import images_at_once
from lvc.compiler.running.run import Run

_BEST = 5


class Classifier:
    """Runs a model in PyTorch on ``images`` at once, those of ``size`` batches of its signature where they stay apart.

    Sums that are made in another order move scores by rounding errors. Images whose choice these could change are run
    again alone, so that what is counted does not depend on how many ran at once.
    """

    def __init__(self, model: Model) -> None:
        self.size = fed_input(model.inputs).spec.shape[0]
        self.images = images_at_once(model) if is_class_scores(model.outputs[0].spec.shape, self.size) else self.size
        self._run = Run(model, frozen=True)
        self._bound = rounding_bound(model.module.graph)

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The first output for images ``[N,...]``."""
        return (np.concatenate(self.parts(inputs)),)

    def parts(self, inputs: np.ndarray) -> list[np.ndarray]:
        """The first output for images ``[N,...]``, for each batch of the signature's size."""
        parts = self._first(inputs)
        if len(parts) > 1:
            for place, part in enumerate(parts):
                if are_close(part.reshape(part.shape[:2]), self._bound):
                    (parts[place],) = self._first(inputs[place * self.size : (place + 1) * self.size])
        return parts

    def _first(self, inputs: np.ndarray) -> list[np.ndarray]:
        return [outputs[0].float().numpy() for outputs in self._run.each(torch.from_numpy(inputs))]


def are_close(scores: np.ndarray, error: float) -> bool:
    """Whether an error of scores ``[N,C]``, relative to the root of their mean square, may change which class is the
    best one, or which are the best five. Nothing is far from what is not finite."""
    best = -np.sort(-scores.astype(np.float64), axis=1)
    gaps = (best[:, :-1] - best[:, 1:])[:, [0, _BEST - 1] if scores.shape[1] > _BEST else [0]]
    return not bool((gaps > 2 * error * np.sqrt(np.square(best).mean(axis=1, keepdims=True))).all())

"""Two models' outputs on the same data: signal to noise, and how often they choose the same class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lvc.compiler.data.batches import batches
from lvc.compiler.data.labelled import Known
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.measure.comparison.layerwise import FloatingRun, LayerError, QuantisedRun
from lvc.compiler.measure.comparison.pairs import Pairing
from lvc.compiler.measure.comparison.signal import Signal
from lvc.compiler.measure.task_metric import in_parts
from lvc.compiler.pipeline.held_out import truth_in
from lvc.compiler.pipeline.workspace import DataSet, Progress

Run = Callable[[torch.Tensor], Sequence[torch.Tensor]]


@dataclass
class OutputError:
    """One output over the data; ``agreed`` counts equal first choices, None if the output is no class scores."""

    name: str
    moments: Signal = field(default_factory=Signal)
    agreed: int | None = None
    images: int = 0

    @property
    def agreement(self) -> float | None:
        return None if self.agreed is None else self.agreed / self.images

    def add(self, wanted: torch.Tensor, found: torch.Tensor) -> None:
        """Take note of what both models gave for a batch."""
        if wanted.shape != found.shape:
            raise UsageError(
                f"the models differ in output '{self.name}'",
                why=f"its shape is {tuple(wanted.shape)} in the first and {tuple(found.shape)} in the second",
            )
        if not bool(torch.isfinite(wanted).all()):
            raise CheckError(f"output '{self.name}' of the first model is NaN or infinite on this data")
        self.moments.add(wanted, found)
        if is_class_scores(wanted.shape):
            same = wanted.flatten(1).argmax(1) == found.flatten(1).argmax(1)
            self.agreed = (self.agreed or 0) + int(same.sum())
            self.images += len(wanted)


@dataclass(frozen=True)
class Images:
    """Which images two models are compared on: a seeded sample of a data set, in batches of a size.

    The last batch is only filled up to a multiple of ``fill``, if that is given.
    """

    data: DataSet
    batch: int
    most: int
    seed: int
    progress: Progress
    fill: int | None = None

    def __len__(self) -> int:
        return min(self.most, len(self.data))

    @property
    def places(self) -> list[int]:
        """Where the images lie in the data set, in their order."""
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self.seed))
        return sorted(order[: len(self)].tolist())

    def known(self, labels: Iterable[Sequence[int | None]], size: int) -> list[Sequence[Known]]:
        """What is known of the true images, whose ``labels`` are those of all batches, for each ``size`` of them."""
        known: list[Known] = [label for part in labels for label in part]
        if truth := truth_in(self.data):
            known = [truth(place) for place in self.places]
        return in_parts(known, size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[int | None]]]:
        """Yield batches, each with the labels of the true images in it: the last may be filled with copies."""
        drawn = set(self.places)
        until = range(max(drawn, default=-1) + 1)
        chosen = (sample for place, sample in zip(until, self.data, strict=False) if place in drawn)
        for array, labels in batches(self.progress.track(chosen, "comparing", len(self)), self.batch, self.fill):
            yield torch.from_numpy(np.ascontiguousarray(array)), labels


def compare_outputs(wanted: Run, found: Run, names: Sequence[str], images: Images) -> list[OutputError]:
    """Run both on the images and compare what they give."""
    errors = [OutputError(name) for name in names]
    for batch, labels in images:
        count = len(labels)
        for error, ours, theirs in zip(errors, wanted(batch), found(batch), strict=True):
            if ours.ndim and len(ours) == len(batch):
                ours, theirs = ours[:count], theirs[:count]
            error.add(ours, theirs)
    return errors


def compare_layers(
    floating: Model, quantised: Model, pairing: Pairing, images: Images
) -> tuple[list[LayerError], list[OutputError]]:
    """Run both models on the images; compare their paired layers and their outputs."""
    first = FloatingRun(floating, pairing.pairs)
    second = QuantisedRun(quantised, pairing.pairs)

    def run_second(batch: torch.Tensor) -> Any:
        second.wanted = first.values
        return second.run(batch)

    with torch.inference_mode():
        outputs = compare_outputs(first.run, run_second, floating.output_names, images)
    return list(second.errors.values()), outputs

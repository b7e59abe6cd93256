"""A data set in memory, in batches that a model takes: what passes learn about a model's values comes from it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from lvc.compiler.data.batches import batches, fed_input
from lvc.compiler.data.labelled import Known
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.pipeline.held_out import truth_in
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import DataSet, Workspace
from lvc.compiler.running.batches import images_at_once, images_held

MOST_IMAGES = 1024
"""As many images as are read unless a pass asks for fewer; estimates are good long before."""

_MOST_BYTES = 2 << 30
_Sample = tuple[np.ndarray, int | None]


@dataclass(frozen=True)
class Calibration:
    """Images in batches of as many as run at once, with their classes, ``i64[images]`` a batch; None if one is missing.

    ``size`` is the batch of the signature, and every batch holds a multiple of it. The last one is filled with the
    first images again as far as that takes. ``different`` counts the images without those, of each of which ``known``
    says what it shows.
    """

    name: str
    batches: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...] | None
    different: int
    size: int
    known: tuple[Known, ...] = ()

    def __len__(self) -> int:
        """How many inputs of the signature's size there are."""
        return self.images // self.size

    @property
    def images(self) -> int:
        return sum(map(len, self.batches))

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """The images in inputs of the signature's size."""
        return tuple(part for batch in self.batches for part in torch.split(batch, self.size))

    @classmethod
    def read(cls, model: Model, workspace: Workspace, name: str, limit: int = MOST_IMAGES) -> Calibration:
        """Read what may be learnt from of a data set that the user gave; `UsageError` if there is none.

        At most ``limit`` images are drawn in a seeded way, for a set often holds one class after another; fewer if they
        would not fit into memory.
        """
        return cls.draw(model, workspace.data_set(name), name, workspace.seed, limit)

    @classmethod
    def draw(cls, model: Model, data: DataSet, name: str, seed: int = 0, limit: int = MOST_IMAGES) -> Calibration:
        """Read images of an open data set, such as those to judge on (`Workspace.judging_images`).

        `UsageError` if it is empty, or if an image has NaN or does not fit.
        """
        if not len(data):
            raise UsageError(f"the data set '{name}' is empty")
        spec = fed_input(model.inputs).spec
        size = spec.shape[0]
        most = min(limit, max(1, _MOST_BYTES // max(1, spec.bytes // size)))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:most].tolist()
        images = dict(zip(sorted(order), _fitting(_drawn(data, order), model, name), strict=True))
        filled = -(-len(order) // size) * size
        chosen = [images[place] for place in itertools.islice(itertools.cycle(order), filled)]
        inputs, rows = zip(*batches(chosen, images_at_once(model), fill=size), strict=True)
        known = all(label is not None for _, label in chosen)
        labels = tuple(torch.tensor([int(label or 0) for label in row]) for row in rows) if known else None
        truth = truth_in(data)
        of_each = tuple(truth(place) if truth else images[place][1] for place in order)
        return cls(name, tuple(map(torch.from_numpy, inputs)), labels, len(order), size, of_each)

    def first(self, images: int) -> Calibration:
        """Return the first inputs, with at least so many images if there are."""
        return self._inputs(0, max(1, -(-images // self.size)))

    def halves(self) -> tuple[Calibration, Calibration]:
        """Return the first half of the inputs and the rest; one input by itself is both."""
        if len(self) == 1:
            return self, self
        middle = -(-len(self) // 2)
        return self._inputs(0, middle), self._inputs(middle, len(self))

    def fitting(self, bytes_of_an_input: int) -> Calibration:
        """Return as many inputs as can all be held in memory at the widest place of a model at once."""
        return self._inputs(0, max(1, _MOST_BYTES // max(1, bytes_of_an_input)))

    def held(self, model: Model) -> Calibration:
        """Return the same images in batches that are small enough to hold all values of a model at once."""
        most = images_held(model)
        labels = self.labels and _split(self.labels, most)
        return replace(self, batches=_split(self.batches, most), labels=labels)

    def _inputs(self, start: int, end: int) -> Calibration:
        first, last = start * self.size, min(end, len(self)) * self.size
        cut = partial(_rows, first=first, last=last)
        different = max(0, min(self.different, last) - first)
        known = self.known[first : first + different]
        labels = self.labels and cut(self.labels)
        return replace(self, batches=cut(self.batches), labels=labels, different=different, known=known)


def _split(rows: Sequence[torch.Tensor], most: int) -> tuple[torch.Tensor, ...]:
    return tuple(part for row in rows for part in torch.split(row, most))


def _rows(rows: Sequence[torch.Tensor], first: int, last: int) -> tuple[torch.Tensor, ...]:
    """Those from the first to before the last of all rows together."""
    starts = itertools.accumulate(map(len, rows), initial=0)
    cuts = (row[max(0, first - start) : max(0, last - start)] for row, start in zip(rows, starts, strict=False))
    return tuple(cut for cut in cuts if len(cut))


def stream(
    model: Model,
    workspace: Workspace,
    name: str,
    limit: int,
    description: str,
    *,
    ranks: Ranks = ALONE,
    first: int = 0,
) -> Iterator[torch.Tensor]:
    """Yield the images of a data set in batches of as many as run at once, one batch in memory at a time.

    Of a set of more than ``limit`` images a seeded sample is drawn. The last batch is a multiple of the signature's,
    filled with copies of its last image. Each of the ``ranks`` gets a share, the leading one at least the ``first``
    images. `UsageError` if there is no such data set, if it is empty, or if an image has
    NaN or does not fit.
    """
    data = workspace.data_set(name)
    count = len(data)
    if not count:
        raise UsageError(f"the data set '{name}' is empty")
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(workspace.seed))[:limit].tolist()
    size = fed_input(model.inputs).spec.shape[0]
    own = ranks.share(len(drawn), size, first)
    chosen = _fitting(_drawn(data, sorted(drawn)[own.start : own.stop]), model, name)
    for array, _ in batches(workspace.progress.track(chosen, description, len(own)), images_at_once(model), fill=size):
        yield torch.from_numpy(array)


def _drawn(data: DataSet, places: Collection[int]) -> Iterator[_Sample]:
    """Yield the samples at some places, in the order of the data set; nothing behind the last of them is read."""
    wanted = set(places)
    until = range(max(wanted, default=-1) + 1)
    return (sample for place, sample in zip(until, data, strict=False) if place in wanted)


def _fitting(samples: Iterable[_Sample], model: Model, name: str) -> Iterator[_Sample]:
    """Yield samples that fit the input of a model and are finite; `UsageError` for the first that does not."""
    spec = fed_input(model.inputs).spec
    wanted = TensorSpec((1, *spec.shape[1:]), spec.dtype)
    for read, label in samples:
        array = np.require(read, requirements="W")  # torch warns of others
        image = torch.from_numpy(array)
        if TensorSpec.of(image) != wanted:
            raise UsageError(f"the images of '{name}' are {TensorSpec.of(image)}, and the model takes {wanted}")
        if not bool(image.isfinite().all()):
            raise UsageError(f"an image of the data set '{name}' has NaN or infinity in it")
        yield array, label

"""What a pass or a backend may use from outside: data, seed, threads, progress, a scratch folder. No globals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline import held_out
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.threads import usable_cores

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model
    from lvc.compiler.measure.device import Device
    from lvc.compiler.pipeline.held_out import JudgingImages
    from lvc.compiler.pipeline.pipeline import Surroundings

T = TypeVar("T")


class Progress(Protocol):
    """How long work tells how far it is. The default says nothing; the command line draws bars on a terminal."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items while showing how many have passed."""
        ...

    def say(self, text: str) -> None:
        """Show one line of talk."""
        ...


class Silence:
    """The progress that shows nothing."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def say(self, text: str) -> None:
        return None


class DataSet(Protocol):
    """Inputs preprocessed for the model: iterating yields ``(input of batch 1, label or None)``."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]: ...


@dataclass(frozen=True)
class Race:
    """The seconds of two models that ran in turns, and the first as a share of the second.

    The seconds are the best of all rounds. The share is the median over the rounds, each of which other programs slow
    down for both alike.
    """

    seconds: float
    other: float
    share: float


class Stopwatch(Protocol):
    """Measures models on the target that the compilation is for; see `lvc.compiler.measure.latency`."""

    @property
    def name(self) -> str:
        """The target."""
        ...

    @property
    def channel_multiple(self) -> int:
        """The widths that the target's kernels like are multiples of this."""
        ...

    def compare(self, model: Model, with_model: Model) -> Race:
        """Measure two models in turns."""
        ...

    def layers(self, model: Model) -> dict[str, float]:
        """Measure the kernels of a model: seconds by the origin of the layer in each, and under "" of the rest."""
        ...


@dataclass(frozen=True)
class Workspace:
    """The outside world of one compilation.

    A part of each data set is held out from the passes, which learn from `data_set`: what they did is judged on
    `judging_images`. See `lvc.compiler.pipeline.held_out`.

    ``surroundings`` are those of a pass, for the passes that it runs; see `Pipeline.run_inside`. ``original`` is the
    model before any pass, which nobody changes. ``device`` is the machine on which what is built for the target is run
    and timed; None for this one. ``stopwatch`` measures models on the target, where there is one. ``checkpoints`` is
    the folder where long passes leave what they have finished, to go on from there; None for none. ``ranks`` are the
    processes that share the work.
    """

    data: Mapping[str, Callable[[], DataSet]] = field(default_factory=dict)
    seed: int = 0
    threads: int = field(default_factory=usable_cores)
    progress: Progress = field(default_factory=Silence)
    checkpoints: Path | None = None
    device: Device | None = None
    stopwatch: Stopwatch | None = None
    surroundings: Surroundings | None = None
    original: Model | None = None
    ranks: Ranks = ALONE

    def data_set(self, name: str) -> DataSet:
        """Open what passes may learn from of the data set that the user named as ``--data NAME=PATH``.

        That is all of it but what is held out for judging.
        """
        data = self._open(name)
        return data if held_out.JUDGE in self.data else held_out.split(data, self.seed)[0]

    def whole_set(self, name: str) -> DataSet:
        """Open all of a data set, for choices among what was learnt from others."""
        return self._open(name)

    def judging_images(self, name: str = "calib") -> JudgingImages:
        """Open the images on which to judge what was learnt from a data set.

        They are those of the set named ``judge`` if there is one, else those held out from the set; all of it if it is
        too small for that, which the result says. `UsageError` if there is neither set.
        """
        if held_out.JUDGE in self.data:
            return held_out.JudgingImages(self._open(held_out.JUDGE), held_out.JUDGE, is_apart=True)
        data = self._open(name)
        apart = held_out.split(data, self.seed)[1]
        return held_out.JudgingImages(apart if len(apart) else data, name, is_apart=len(apart) > 0)

    def _open(self, name: str) -> DataSet:
        if name not in self.data:
            raise no_data_set(name, self.data)
        return self.data[name]()

    def target_stopwatch(self) -> Stopwatch:
        """Return the stopwatch; `UsageError` where there is no target to measure on."""
        if self.stopwatch is None:
            raise UsageError("there is no target to measure latency on", help="compile for one, or give another budget")
        return self.stopwatch

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone when the ``with`` block ends."""
        with tempfile.TemporaryDirectory(prefix="lvc-") as folder:
            yield Path(folder)


def no_data_set(name: str, given: Collection[str], where: str = "") -> UsageError:
    """The error for a data set that was not given."""
    known = ", ".join(sorted(given)) or "none"
    help = f"give one with --data {name}=PATH"
    return UsageError(f"no data set named '{name}'", where=where, why=f"data sets given: {known}", help=help)

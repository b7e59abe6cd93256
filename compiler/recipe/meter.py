"""What is measured of the model after each stage: how often it is right, and how fast it would be on the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from lvc.compiler.backend import Target
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.choices import Choices, check_classifies, choices_of_model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import DataSet, Progress, Silence, Stopwatch
from lvc.compiler.recipe import digests
from lvc.compiler.recipe.store import Store
from lvc.compiler.remote.errors import Retired

T = TypeVar("T")


@dataclass(frozen=True)
class ScoredOn:
    """The data set that models are scored on, and by which metric."""

    name: str
    metric: str
    open: Callable[[], DataSet]
    digest: Callable[[], str]

    def choices(self, choose: Callable[[DataSet], Choices]) -> Choices:
        """Run a model over the images; errors name the data set."""
        return self._named(lambda: choose(self.open()))

    def share(self, choices: Choices, original: Choices) -> float:
        """The score of what was chosen, as a share of one."""
        return self._named(lambda: choices.share(self.metric, original))

    def _named(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except UsageError as error:
            raise error if error.where else error.at(f"the data set '{self.name}'") from error


@dataclass(frozen=True)
class Measured:
    """``score`` is a share of one. ``latency`` is in seconds, ``original`` that of the model as it was loaded, timed in
    turns with it, and ``share`` the first over the second. None if it was not measured."""

    score: float | None = None
    latency: float | None = None
    original: float | None = None
    share: float | None = None


class Meter:
    """Measures models beside the one that was loaded; with a ``store`` what was measured before is known.

    ``scored`` and ``stopwatch`` are None where accuracy or latency is not measured, the latter on ``processor``.
    """

    def __init__(
        self,
        original: Model,
        target: Target,
        *,
        scored: ScoredOn | None = None,
        stopwatch: Stopwatch | None = None,
        store: Store | None = None,
        processor: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.original = original
        self._target = target
        self.scored = scored
        self._stopwatch = stopwatch
        self._store = store
        self._processor = processor
        self._progress = progress or Silence()
        if scored:
            check_classifies(original)

    @cached_property
    def digest(self) -> str:
        """That of the model as it was loaded."""
        return digests.of_model(self.original)

    @cached_property
    def original_choices(self) -> Choices:
        """What the model as it was loaded chooses."""
        assert self.scored
        return self.scored.choices(lambda data: choices_of_model(self.original, data, self._progress))

    @cached_property
    def original_score(self) -> float:
        """The score of the model as it was loaded."""
        return self._score(self.original, self.digest)

    def stored_bytes(self, model: Model) -> int:
        """The bytes of the tensors that a model stores once it is built for the target, which may store integers."""
        completion = catalogue.BACKENDS.get(self._target.backend).completion
        try:
            return Pipeline().run(model, completion=completion, share_tensors=True)[0].bytes
        except LvcError:  # it cannot be built as it is, such as between two passes of quantisation
            return model.bytes

    def measure(self, name: str, model: Model, digest: str) -> Measured:
        """Measure the model after the stage ``name``; that as it was loaded has no latency until another is timed."""
        score = None if self.scored is None else self._score(model, digest)
        if self._stopwatch is None or digest == self.digest:
            return Measured(score)
        try:
            return Measured(score, *self._time(model, digest, self._stopwatch))
        except Retired:
            raise
        except LvcError as error:
            self._progress.say(f"note: the latency after '{name}' is not known: {error.why or error.what}")
            return Measured(score)

    def _score(self, model: Model, digest: str) -> float:
        scored = self.scored
        assert scored

        def measure() -> dict[str, Any]:
            if digest == self.digest:
                choices = self.original_choices
            else:
                choices = scored.choices(lambda data: choices_of_model(model, data, self._progress))
            return {"score": scored.share(choices, self.original_choices)}

        if not self._store:
            return float(measure()["score"])
        what = {"score": scored.metric, "of": digest, "beside": self.digest, "on": scored.digest()}
        return float(self._store.remember(what, measure)["score"])

    def _time(self, model: Model, digest: str, stopwatch: Stopwatch) -> tuple[float, float, float]:
        def measure() -> dict[str, Any]:
            race = stopwatch.compare(model, self.original)
            return {"latency": race.seconds, "original": race.other, "share": race.share}

        if not self._store:
            found = measure()
        else:
            what = {"latency": stopwatch.name, "of": digest, "beside": self.digest, "processor": self._processor}
            found = self._store.remember(what, measure)
        return float(found["latency"]), float(found["original"]), float(found["share"])

"""The stages of a recipe: parts of a pipeline with names, run in order, each kept when it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from lvc.compiler.errors import LvcError, UsageError, did_you_mean
from lvc.compiler.ir.model import Model
from lvc.compiler.measure import records
from lvc.compiler.measure.comparison.judge import last_loss
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.held_out import JUDGE
from lvc.compiler.pipeline.passes import Pass
from lvc.compiler.pipeline.pipeline import Observer, Pipeline, Step
from lvc.compiler.pipeline.text import with_option
from lvc.compiler.pipeline.workspace import DataSet, Race, Stopwatch, Workspace
from lvc.compiler.recipe import digests
from lvc.compiler.recipe.meter import Meter
from lvc.compiler.recipe.store import Kept, Needs, Store, running_version
from lvc.compiler.report import StageReport

AS_LOADED = "as loaded"
"""The line of a report that stands in front of all stages."""


@dataclass(frozen=True)
class Stage:
    """A part of a pipeline under a name."""

    name: str
    pipeline: Pipeline

    @classmethod
    def parse(cls, name: str, text: str, place: str, extra: Iterable[type[Pass]]) -> Stage:
        """Read the pipeline's text, which stands at a place; ``extra`` are more passes that it may name."""
        try:
            return cls(name, Pipeline.parse(text, extra))
        except UsageError as error:
            raise error.at(f"{place}, the pipeline of '{name}'") from error

    def mentions(self, text: str) -> bool:
        """Whether an option of a pass has this text, such as the name of a data set."""
        return any(getattr(item, option.name) == text for item in self.pipeline for option in fields(item))

    def with_option(self, item: str, name: str, value: str) -> Stage:
        """The stage with an option of the pass ``item``, or where that is empty of the only pass that has it."""
        passes = list(self.pipeline)
        names = dict.fromkeys(one.name for one in passes)
        if item and item not in names:
            help = f"{did_you_mean(item, names)}its passes: {', '.join(names) or 'none'}"
            raise UsageError(f"the stage '{self.name}' has no pass '{item}'", help=help)
        key = name.replace("-", "_")
        having = [one for one in passes if any(option.name == key for option in one.options())]
        chosen = [one for one in passes if one.name == item] if item else having
        if not chosen:
            known = sorted({option.name for one in passes for option in one.options()})
            help = f"{did_you_mean(key, known)}its options: {', '.join(known) or 'none'}"
            raise UsageError(f"no pass of the stage '{self.name}' has an option '{name}'", help=help)
        if len({one.name for one in chosen}) > 1:
            several = " and ".join(dict.fromkeys(one.name for one in chosen))
            help = f"name the pass: {self.name}.{chosen[0].name}.{name}"
            raise UsageError(f"several passes of the stage '{self.name}' have an option '{name}': {several}", help=help)
        changed = (with_option(one, name, value) if one in chosen else one for one in passes)
        return replace(self, pipeline=Pipeline(tuple(changed)))


def with_overrides(stages: Sequence[Stage], overrides: Iterable[tuple[str, str, str, str]]) -> tuple[Stage, ...]:
    """Return stages with options that ``--set`` gave: stage, pass or "", option, value."""
    made = list(stages)
    for name, item, option, value in overrides:
        place = next(index for index, stage in enumerate(made) if stage.name == name)
        try:
            made[place] = made[place].with_option(item, option, value)
        except UsageError as error:
            parts = ".".join(filter(None, (name, item, option)))
            raise error.at(f"--set {parts}={value}") from error
    return tuple(made)


@dataclass
class Stages:
    """A run by stages. With a ``store`` those that ran before are brought from there, and those that finish are kept.

    A stage goes on with the model as it would be read from the store, and observers begin each stage as they would
    after a start from there: so a run that was killed ends as one that was not. ``digests`` give those of data sets by
    name when they are asked for, ``files`` are of plug-ins. What stages gave is in ``reports``.
    """

    stages: Sequence[Stage]
    meter: Meter
    store: Store | None = None
    data: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    kinds: Sequence[type[Pass]] = ()
    target: str = ""
    reports: list[StageReport] = field(default_factory=list)

    @property
    def pipeline(self) -> Pipeline:
        """All passes in order."""
        return Pipeline(tuple(item for stage in self.stages for item in stage.pipeline))

    def run(self, model: Model, workspace: Workspace, observers: Sequence[Observer]) -> tuple[Model, list[Step]]:
        """Rewrite the model by all stages, until an observer ends the run."""
        source, digest = model.source, digests.of_model(model)
        self.reports = [self._report(AS_LOADED, model, digest, ())]
        steps: list[Step] = []
        is_at_start = True
        for stage in self.stages:
            needs = self._needs(stage, digest, workspace)
            kept, more, reason = self._recall(stage, needs, workspace, len(steps))
            is_cached = kept is not None
            if not kept:
                if not is_at_start:
                    _resume(observers, model)
                started, used = time.perf_counter(), _Used()
                watched = used.watched(workspace)
                more = stage.pipeline.rewrite(model, watched, observers, len(steps), total=len(self.pipeline))
                seconds = time.perf_counter() - started
                if len(more) < len(stage.pipeline):
                    return model, [*steps, *more]
                kept = self._keep(stage, used.of(needs), model, round(seconds, 3), more)
            is_at_start = False
            steps += more
            model, digest = kept.model, kept.result
            model.source = source
            report = self._report(stage.name, model, digest, steps)
            self.reports.append(replace(report, seconds=kept.seconds, cached=is_cached, reason=reason))
        if not is_at_start:
            _resume(observers, model)
        self._complete_first_report(steps)
        return model, steps

    def _recall(
        self, stage: Stage, needs: Needs, workspace: Workspace, done: int
    ) -> tuple[Kept | None, list[Step], str]:
        """Bring a stage that ran before, with its records, or else say why it has to run."""
        if not self.store:
            return None, [], ""
        kept, reason = self.store.find(stage.name, needs)
        if not kept:
            return None, [], reason
        try:
            steps = [records.from_json(data, self._pass) for data in kept.steps]
        except (LvcError, KeyError, TypeError, ValueError, AttributeError) as error:
            return None, [], f"its record cannot be read ({type(error).__name__}: {error})"
        for number, step in enumerate(steps, done + 1):
            step.number, step.total = number, len(self.pipeline)
        for name in kept.needs.data:
            workspace.data[name]()  # it counts as read
        return kept, steps, ""

    def _complete_first_report(self, steps: Sequence[Step]) -> None:
        """Put into the first line what is known of the model as it was loaded once another was compared with it."""
        first, loss = self.reports[0], last_loss(steps)
        if first.score is None and loss:
            first = replace(first, score=loss.score_as_loaded)
        if times := [report.original_latency for report in self.reports if report.original_latency is not None]:
            first = replace(first, latency=min(times))
        self.reports[0] = first

    def _needs(self, stage: Stage, digest: str, workspace: Workspace) -> Needs:
        if not self.store:
            return Needs("", digest, (), "", "", 0, {}, "")
        is_whole = JUDGE in workspace.data
        data = {name: f"{self.data[name]()} {'whole' if is_whole else 'split'}" for name in workspace.data}
        files = digests.of_files(stage.pipeline, self.plugins)
        return Needs(
            original=self.meter.digest,
            model=digest,
            passes=tuple(map(str, stage.pipeline)),
            files=files,
            version=running_version(),
            seed=workspace.seed,
            data=data,
            target=self.target,
        )

    def _keep(self, stage: Stage, needs: Needs, model: Model, seconds: float, steps: Sequence[Step]) -> Kept:
        if self.store:
            return self.store.keep(stage.name, needs, model, seconds, [records.to_json(step) for step in steps])
        return Kept(stage.name, needs, model, digests.of_model(model), seconds, [])

    def _pass(self, text: str) -> Pass:
        (item,) = Pipeline.parse(text, self.kinds)
        return item

    def _report(self, name: str, model: Model, digest: str, steps: Sequence[Step]) -> StageReport:
        found, loss = self.meter.measure(name, model, digest), last_loss(steps)
        return StageReport(
            name=name,
            macs=total_macs(model.module.graph),
            bytes=self.meter.stored_bytes(model),
            score=loss.score if found.score is None and loss else found.score,
            sqnr=loss.worst.sqnr if loss else None,
            latency=found.latency,
            original_latency=found.original,
            share=found.share,
        )


def _resume(observers: Iterable[Observer], model: Model) -> None:
    for observer in observers:
        observer.resume(model)


class _Used:
    """Notes which data sets a stage opens, and whether it measures on the target."""

    def __init__(self) -> None:
        self.data: set[str] = set()
        self.stopwatch = False

    def watched(self, workspace: Workspace) -> Workspace:
        """The same workspace, watched."""
        data = {name: self._opener(name, opened) for name, opened in workspace.data.items()}
        stopwatch = workspace.stopwatch and _WatchedStopwatch(workspace.stopwatch, self)
        return replace(workspace, data=data, stopwatch=stopwatch)

    def of(self, needs: Needs) -> Needs:
        """What of the needs was used."""
        data = {name: digest for name, digest in needs.data.items() if name in self.data}
        return replace(needs, data=data, target=needs.target if self.stopwatch else "")

    def _opener(self, name: str, opened: Callable[[], DataSet]) -> Callable[[], DataSet]:
        def opener() -> DataSet:
            self.data.add(name)
            return opened()

        return opener


@dataclass(frozen=True)
class _WatchedStopwatch:
    inner: Stopwatch
    used: _Used

    @property
    def name(self) -> str:
        self.used.stopwatch = True
        return self.inner.name

    @property
    def channel_multiple(self) -> int:
        self.used.stopwatch = True
        return self.inner.channel_multiple

    def compare(self, model: Model, with_model: Model) -> Race:
        self.used.stopwatch = True
        return self.inner.compare(model, with_model)

    def layers(self, model: Model) -> dict[str, float]:
        self.used.stopwatch = True
        return self.inner.layers(model)

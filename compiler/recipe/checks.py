"""What was built beside what a recipe demands: bytes, accuracy and speed of the artefact, before it is written."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Executable, Place, Target, check_timed
from lvc.compiler.bench.comparison import Contestant, Row, compare
from lvc.compiler.bench.engine import Original, find_engine, prepare
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.choices import AGREEMENT, choices_of_run
from lvc.compiler.measure.device import Device, ThisMachine
from lvc.compiler.measure.latency import TargetStopwatch
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.recipe.limits import ORIGINAL, Limits
from lvc.compiler.recipe.meter import Meter
from lvc.compiler.report import StageReport
from lvc.compiler.text import counted, duration

COMPILED = "compiled"
"""The line of a report that stands behind all stages."""

_SECONDS = 3.0  # that a race takes
_EPSILON = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What was found for one demand, in words, and whether it holds."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Checks:
    """The ``limits`` of a recipe on one compilation: of ``model``, loaded as ``request`` says, for ``target``."""

    limits: Limits
    meter: Meter
    model: Model
    request: LoadRequest
    target: Target
    workspace: Workspace

    def check_request(self) -> None:
        """Raise `UsageError` for what cannot be checked on this machine, before any work is done."""
        limits, place = self.limits, self._place
        if self.workspace.device and limits.against not in ("", ORIGINAL):
            why = f"{limits.against} does not run on {self.workspace.device.where}"
            raise UsageError("the recipe checks a speed-up", why=why, help=f'take against = "{ORIGINAL}"')
        if limits.times and place is not Place.HERE:
            why = f"this machine does not run code for {self.target.text}, so it cannot time it"
            raise UsageError("the recipe checks how fast the code is", why=why, help="leave these checks out")
        if limits.scores and place is Place.ELSEWHERE:
            why = f"this machine does not run code for {self.target.text}"
            raise UsageError(f"the recipe checks the {limits.metric} of the code", why=why, help="leave it out")
        if limits.against and limits.against != ORIGINAL:
            find_engine(limits.against).version()

    def examine(self, artefact: Artefact) -> tuple[StageReport, list[Verdict]]:
        """Measure an artefact; return the last line of the report, and what was found for each demand."""
        size = container.size(artefact)
        report, verdicts = StageReport(COMPILED, None, size), []
        if (most := self.limits.max_bytes) is not None:
            verdicts.append(Verdict(f"{size:,} bytes, at most {most:,.0f} allowed", size <= most))
        if self.meter.scored and self._place is not Place.ELSEWHERE:
            report = dataclasses.replace(report, score=(score := self._score(artefact)))
            verdicts += self._score_verdicts(score)
        if self.limits.times:
            rows = self._race(artefact)
            report = dataclasses.replace(report, latency=rows[0].timing.best)
            verdicts += self._time_verdicts(rows)
        return report, verdicts

    def _score(self, artefact: Artefact) -> float:
        run, scored = self._executable(artefact, self.workspace.threads), self.meter.scored
        assert scored
        size = artefact.inputs[0].spec.shape[0]
        found = scored.choices(lambda data: choices_of_run(run, size, data, self.workspace.progress))
        return scored.share(found, self.meter.original_choices)

    def _score_verdicts(self, score: float) -> Iterator[Verdict]:
        limits = self.limits
        name, found = f"{limits.metric} on '{limits.data}' {score * 100:.2f} %", score * 100
        if limits.max_drop is not None:
            before = 100.0 if limits.metric == AGREEMENT else self.meter.original_score * 100
            text = f"{name}, {before - found:.2f} points less than {before:.2f} %, at most {limits.max_drop:g} allowed"
            yield Verdict(text, before - found <= limits.max_drop + _EPSILON)
        if limits.min_accuracy is not None:
            yield Verdict(f"{name}, at least {limits.min_accuracy:g} % wanted", found >= limits.min_accuracy - _EPSILON)

    def _time_verdicts(self, rows: list[Row]) -> Iterator[Verdict]:
        limits, own = self.limits, duration(rows[0].timing.best)
        on = f"on {counted(limits.threads, 'thread')}"
        if limits.max_latency is not None:
            text = f"{own} a run {on}, at most {duration(limits.max_latency)} allowed"
            yield Verdict(text, rows[0].timing.best <= limits.max_latency)
        if limits.min_speedup is not None:
            other, ratio = rows[1], rows[1].ratio
            theirs = f"{other.name} {other.version}".rstrip()
            text = f"{ratio:.2f} times as fast as {theirs} {on} ({own} against {duration(other.timing.best)})"
            yield Verdict(f"{text}, at least {limits.min_speedup:g} wanted", ratio >= limits.min_speedup)

    def _race(self, artefact: Artefact) -> list[Row]:
        """Time the artefact, in turns with what it is to be faster than."""
        threads, against = self.limits.threads, self.limits.against
        own = self._executable(artefact, threads)
        check_timed(own)
        with tempfile.TemporaryDirectory(prefix="lvc-recipe-") as scratch:
            contestants = [Contestant(artefact.name, "lvc", own)]
            if against == ORIGINAL:
                workspace = dataclasses.replace(self.workspace, threads=threads)
                built = TargetStopwatch(self.target, workspace).call(self.model)[0]
                contestants.append(Contestant("the original compiled by lvc", "", built))
            elif against:
                engine = find_engine(against)
                peer = prepare(engine, Original(self.request, Path(scratch)), threads)
                contestants.append(Contestant(engine.name, engine.version(), peer))
            inputs: tuple[np.ndarray, ...] = seeded_inputs(artefact.inputs, self.workspace.seed)
            progress = self.workspace.progress
            return compare(
                contestants, inputs, self._device, seconds=_SECONDS, repeats=None, clock="wall", progress=progress
            )

    def _executable(self, artefact: Artefact, threads: int) -> Executable:
        return self._device.load(artefact, threads)

    @property
    def _place(self) -> Place:
        """Where the code runs: on the board if there is one."""
        if self.workspace.device:
            return Place.HERE
        return catalogue.BACKENDS.get(self.target.backend).place(self.target)

    @property
    def _device(self) -> Device:
        return self.workspace.device or ThisMachine(emulate=self._place is Place.EMULATED)


def failed(verdicts: Sequence[Verdict], place: str) -> CheckError | None:
    """The error for an artefact that fails what its recipe demands; None if it does not."""
    broken = [verdict.text for verdict in verdicts if not verdict.holds]
    if not broken:
        return None
    return CheckError(
        broken[0] if len(broken) == 1 else f"{len(broken)} checks of the recipe fail",
        where=place,
        why="\n".join(broken) if len(broken) > 1 else "",
        help="ask the stages for less, or allow more; nothing was written",
    )

"""What a compilation did: each pass with changes, skips and their reasons, seconds and drift; then sizes and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from lvc.compiler.ir.graph import is_widening
from lvc.compiler.ir.groups import groups
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.choices import TOP1
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.task_metric import METRICS
from lvc.compiler.pipeline.passes import Table
from lvc.compiler.pipeline.pipeline import Step
from lvc.compiler.text import decibels, duration, percent, si, title
from lvc.compiler.verification.record import Verified


@dataclass(frozen=True)
class PassReport:
    """One pass of a run, or one that another pass ran: ``number`` is then like 2.1, and ``within`` names those around.

    ``changed`` names nodes that stand in the graph after it, ``removed`` those that are gone.

    ``drift`` is relative; it and ``loss`` are None when they were not measured.
    """

    number: str
    within: tuple[str, ...]
    text: str
    effect: str
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    seconds: float
    drift: float | None
    measured: dict[str, Any]
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    loss: Loss | None = None

    @property
    def found_something(self) -> bool:
        """Whether it changed a place, left one alone, moved the outputs, or has something to say."""
        return bool(self.changed or self.removed or self.skipped or self.drift or self.notes)

    @property
    def name(self) -> str:
        """Its name behind those of the passes around it, without options."""
        return self.full_text.partition("{")[0]

    @property
    def full_text(self) -> str:
        """Its text behind the names of the passes around it: ``prune-channels > recalibrate-batch-norm{images=64}``."""
        return " > ".join((*self.within, self.text))

    @classmethod
    def of(cls, step: Step) -> PassReport:
        measured = dict(step.measured)
        loss: Loss | None = measured.pop("loss", None)
        return cls(
            number=step.place,
            within=step.path[:-1],
            text=str(step.item),
            effect=step.item.effect.name.lower(),
            changed=tuple(step.outcome.changed),
            removed=tuple(step.outcome.removed),
            skipped=tuple(asdict(skip) for skip in step.outcome.skipped),
            seconds=round(measured.pop("seconds", 0.0), 6),
            drift=measured.pop("drift", None),
            measured=measured,
            notes=tuple(step.outcome.notes),
            tables=tuple(step.outcome.tables),
            loss=loss and loss.rounded(),
        )


@dataclass(frozen=True)
class Size:
    """How large a model is: operator calls, stored elements, their bytes."""

    calls: int
    parameters: int
    bytes: int

    @classmethod
    def of(cls, model: Model) -> Size:
        calls = sum(node.op == "call_function" and not is_widening(node) for node in model.module.graph.nodes)
        return cls(calls, model.parameters, model.bytes)


@dataclass(frozen=True)
class StageReport:
    """The model after a stage of a recipe, or at the end what was built from it.

    ``macs`` and ``bytes`` are those of the graph, at the end the bytes of the file. ``score`` is a share of one: of the
    metric that the recipe checks, else of that of the task on held-out images. ``latency`` is in seconds, and
    ``share`` of that of the model as it was loaded, ``original_latency``, which ran in turns with it. ``seconds`` is
    how long the stage took when it ran, and ``reason`` why it ran now where stages are kept. None: not measured.
    """

    name: str
    macs: int | None
    bytes: int
    score: float | None = None
    sqnr: float | None = None
    latency: float | None = None
    original_latency: float | None = None
    share: float | None = None
    seconds: float | None = None
    cached: bool = False
    reason: str = ""

    def timeless(self) -> StageReport:
        """The same without what two runs of the same differ by."""
        return replace(self, latency=None, original_latency=None, share=None, seconds=None, cached=False, reason="")


@dataclass
class Report:
    """The record of one compilation; plain data, so that it can be stored and compared.

    ``losses`` are sentences on what all passes together cost. ``loaded`` is how the model compares with its source,
    ``built`` how the artefact compares with it in turn, ``variants`` how it does so in other shapes; ``difference`` is
    that of ``built`` where it was asked for. ``stages`` are those of a recipe, behind the model as loaded, and
    ``checks`` what was found for its demands.
    """

    model: str
    source: str
    pipeline: str
    target: str
    before: Size
    after: Size
    passes: tuple[PassReport, ...] = ()
    stages: tuple[StageReport, ...] = ()
    checks: tuple[dict[str, Any], ...] = ()
    groups: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, int] = field(default_factory=dict)
    load_seconds: float = 0.0
    build_seconds: float = 0.0
    difference: float | None = None
    loaded: Verified | None = None
    built: Verified | None = None
    variants: dict[str, Verified] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it: numbers that are not finite are texts."""
        found: dict[str, Any] = _finite(asdict(self))
        return found

    def timeless(self) -> Report:
        """The same report without seconds and what was verified by default: the part that equal inputs make equal."""
        passes = tuple(replace(item, seconds=0.0, measured={}) for item in self.passes)
        stages = tuple(item.timeless() for item in self.stages)
        timeless = replace(self, passes=passes, stages=stages, load_seconds=0.0, build_seconds=0.0)
        return replace(timeless, loaded=None, built=None, variants={})

    def pass_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headers and rows of a table of the passes that found something.

        It has the columns that something was measured for: drift; and of the output that lost most, what the pass
        alone and what all passes so far have lost, on how many images the first choice is that of the model as it was
        loaded, and how well it does by the metric of its task.
        """
        rows = [item for item in self.passes if item.found_something]
        columns: dict[str, list[str]] = {
            "pass": [item.full_text for item in rows],
            "changed": [str(len(item.changed) + len(item.removed)) for item in rows],
            "skipped": [str(len(item.skipped)) for item in rows],
            "time": [f"{item.seconds:.2f} s" for item in rows],
            "drift": ["" if item.drift is None else f"{item.drift:.1e}" for item in rows],
            **_loss_columns([item.loss for item in rows]),
        }
        filled = {name: cells for name, cells in columns.items() if name not in _OPTIONAL or any(cells)}
        return tuple(filled), list(zip(*filled.values(), strict=True))

    @property
    def metric(self) -> str:
        """The metric by which passes were judged on images of which it is known what they show."""
        named = (item.loss.metric for item in self.passes if item.loss and item.loss.metric)
        return next(named, TOP1)

    def stage_table(self, metric: str = TOP1) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headers and rows of a table of the stages, with the columns that something was measured for."""
        stages = self.stages
        columns = {
            "stage": [item.name for item in stages],
            metric: ["" if item.score is None else percent(item.score, 2) for item in stages],
            "signal": ["" if item.sqnr is None else decibels(item.sqnr) for item in stages],
            "MACs": ["" if item.macs is None else si(item.macs) for item in stages],
            "bytes": [si(item.bytes, "B") for item in stages],
            "latency": ["" if item.latency is None else duration(item.latency) for item in stages],
            "share": ["" if item.share is None else f"{item.share:.3f}x" for item in stages],
            "time": ["" if item.seconds is None else duration(item.seconds) for item in stages],
            "": ["cached" if item.cached else "" for item in stages],
        }
        filled = {name: cells for name, cells in columns.items() if any(cells)}
        return tuple(filled), list(zip(*filled.values(), strict=True))

    def stage_lines(self) -> list[str]:
        """Why each stage ran that did, where stages are kept."""
        return [f"stage '{item.name}' ran: {item.reason}" for item in self.stages if item.reason]

    def note_lines(self) -> list[str]:
        """What passes have to say to every user, and what they cost together."""
        notes = [f"{item.name}: {note}" for item in self.passes for note in item.notes]
        return notes + [f"in all: {line}" for line in self.losses]

    def verified_lines(self) -> list[str]:
        """How the model as loaded and what was built compare with what they should be."""
        if self.loaded and self.built and self.loaded.skipped == self.built.skipped != "":
            return [str(self.loaded)]
        pairs = {"as loaded": self.loaded, "as built": self.built}
        pairs |= {f"as built for {shapes}": found for shapes, found in self.variants.items()}
        return [f"{what}: {found}" for what, found in pairs.items() if found]

    def skip_lines(self) -> list[str]:
        """One line for each place that a pass left alone; of a pass that ran twice, what it said last."""
        last = {item.full_text: item for item in self.passes}
        return [
            f"{item.name} left {title(skip['origin'])} ({skip['node']}): {skip['reason']}"
            for item in last.values()
            for skip in item.skipped
        ]


def group_labels(model: Model) -> tuple[str, ...]:
    """The groups that `fuse-operators` marked, each as its members joined by ``+``."""
    return tuple(" + ".join(node.name for node in group.members) for group in groups(model.module.graph))


def reports_of(steps: Sequence[Step]) -> tuple[PassReport, ...]:
    """The passes in the order in which they began: those that a pass ran stand behind it."""
    return tuple(report for step in steps for report in (PassReport.of(step), *reports_of(step.inner)))


_OPTIONAL = ("drift", "alone", "in all", "agree", *METRICS)


def _loss_columns(losses: Sequence[Loss | None]) -> dict[str, list[str]]:
    """The cells of what was lost, by the headers of their columns; empty where nothing was measured."""

    def cells(tell: Callable[[Loss], str]) -> list[str]:
        return ["" if loss is None else tell(loss) for loss in losses]

    return {
        "alone": cells(lambda loss: decibels(loss.sqnr_alone) if loss.alone else ""),
        "in all": cells(lambda loss: decibels(loss.worst.sqnr)),
        "agree": cells(lambda loss: loss.agreement_text),
        **{name: cells(partial(_score_text, name)) for name in METRICS},
    }


def _score_text(metric: str, loss: Loss) -> str:
    return "" if loss.score is None or loss.metric != metric else percent(loss.score, 2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

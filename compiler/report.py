"""What a compilation did: each pass with changes, skips and their reasons, seconds and drift; then sizes and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lvc.compiler.graph import is_widening
from lvc.compiler.groups import groups
from lvc.compiler.model import Model
from lvc.compiler.passes import Table
from lvc.compiler.pipeline import Step


@dataclass(frozen=True)
class PassReport:
    """One pass of a run. ``drift`` is relative, None when it was not measured."""

    text: str
    effect: str
    changed: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    seconds: float
    drift: float | None
    measured: dict[str, Any]
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def found_something(self) -> bool:
        """Whether it changed a place, left one alone, moved the outputs, or has something to say."""
        return bool(self.changed or self.skipped or self.drift or self.notes)

    @classmethod
    def of(cls, step: Step) -> PassReport:
        measured = dict(step.measured)
        return cls(
            text=str(step.item),
            effect=step.item.effect.name.lower(),
            changed=tuple(step.outcome.changed),
            skipped=tuple(asdict(skip) for skip in step.outcome.skipped),
            seconds=round(measured.pop("seconds", 0.0), 6),
            drift=measured.pop("drift", None),
            measured=measured,
            notes=tuple(step.outcome.notes),
            tables=tuple(step.outcome.tables),
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


@dataclass
class Report:
    """The record of one compilation; plain data, so that it can be stored and compared."""

    model: str
    source: str
    pipeline: str
    target: str
    before: Size
    after: Size
    passes: tuple[PassReport, ...] = ()
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, int] = field(default_factory=dict)
    load_seconds: float = 0.0
    build_seconds: float = 0.0
    difference: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def timeless(self) -> Report:
        """The same report without seconds: the part that equal inputs make equal."""
        passes = tuple(replace(item, seconds=0.0, measured={}) for item in self.passes)
        return replace(self, passes=passes, load_seconds=0.0, build_seconds=0.0)

    def pass_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headers and rows of a table of the passes that found something; with their drift if it was measured."""
        headers: tuple[str, ...] = ("pass", "changed", "skipped", "time", "drift")
        rows: list[tuple[str, ...]] = [
            (
                item.text,
                str(len(item.changed)),
                str(len(item.skipped)),
                f"{item.seconds:.2f} s",
                "" if item.drift is None else f"{item.drift:.1e}",
            )
            for item in self.passes
            if item.found_something
        ]
        if all(item.drift is None for item in self.passes):
            return headers[:-1], [row[:-1] for row in rows]
        return headers, rows

    def note_lines(self) -> list[str]:
        """What passes have to say to every user."""
        return [f"{item.text.partition('{')[0]}: {note}" for item in self.passes for note in item.notes]

    def skip_lines(self) -> list[str]:
        """One line for each place that a pass left alone; of a pass that ran twice, what it said last."""
        last = {item.text: item for item in self.passes}
        return [
            f"{text.partition('{')[0]} left {skip['node']} ({skip['origin']}): {skip['reason']}"
            for text, item in last.items()
            for skip in item.skipped
        ]


def group_labels(model: Model) -> tuple[str, ...]:
    """The groups that `fuse-operators` marked, each as its members joined by ``+``."""
    return tuple(" + ".join(node.name for node in group.members) for group in groups(model.module.graph))


def reports_of(steps: Sequence[Step]) -> tuple[PassReport, ...]:
    return tuple(PassReport.of(step) for step in steps)

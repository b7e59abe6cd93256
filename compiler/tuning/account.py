"""What tuning has found: kernel by kernel, and for the model as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lvc.compiler.text import counted, duration, percent
from lvc.compiler.tuning.judgement import Share
from lvc.compiler.tuning.search import Search

FAR_OFF = 0.1
"""A rule that is further off than this is worth a report."""


@dataclass(frozen=True)
class Row:
    """A kernel: how often the model runs it, and the seconds of one run by its rule, as tuned, and at least. So many
    choices have been tried, and so many are ``running``; ``problem`` is what it computes."""

    title: str
    key: str
    count: int
    rule: float
    best: float
    roof: float
    choice: str
    rule_choice: str
    trials: int
    note: str = ""
    problem: str = ""
    running: int = 0

    @classmethod
    def of(cls, search: Search) -> Row:
        kernel = search.kernel
        return cls(
            kernel.title,
            kernel.key,
            kernel.count,
            kernel.seconds,
            search.seconds,
            kernel.roof,
            search.incumbent,
            kernel.rule,
            len(search.tried),
            search.given_up,
            kernel.problem,
            len(search.running),
        )

    @property
    def gain(self) -> float:
        """How many times as fast it is as by its rule."""
        return self.rule / self.best


@dataclass
class Account:
    """The state of a model's tuning. ``rest`` are the seconds of what cannot be tuned, ``hope`` those that may still be
    won; ``trials`` and ``spent`` are those of the model's budget so far. ``measured`` is the time of the whole model as
    a share of that by the rules, run in turns, once it is known. ``withdrawn`` are titles of kernels whose gain did not
    show in the model. ``curve`` has after each batch the seconds spent so far, and those of the model then. ``doing``
    says what is done beside trials, and ``known_by`` on which processor and with which version of lvc this was found.
    """

    rows: Sequence[Row]
    rest: float
    hope: float = 0.0
    trials: int = 0
    spent: float = 0.0
    left: str = ""
    measured: Share | None = None
    withdrawn: list[str] = field(default_factory=list)
    reason: str = ""
    is_interrupted: bool = False
    curve: list[tuple[float, float]] = field(default_factory=list)
    doing: str = ""
    known_by: str = ""

    @property
    def by_rule(self) -> float:
        """Seconds of the model by the rules alone."""
        return self.rest + sum(row.count * row.rule for row in self.rows)

    @property
    def tuned(self) -> float:
        """Seconds of the model as tuned."""
        return self.rest + sum(row.count * row.best for row in self.rows)

    @property
    def gain(self) -> float:
        """How many times as fast the model is, as measured if it was."""
        if self.measured:
            return 1 / self.measured.value
        return self.by_rule / self.tuned if self.tuned else 1.0

    @property
    def expected(self) -> str:
        """How much faster it may still become, for people."""
        return percent(self.hope / self.tuned, 0) if self.tuned else "0 %"

    @property
    def summary(self) -> str:
        """One line for people."""
        how = f" (give or take {percent(self.measured.error, 0)})" if self.measured else ", by its kernels"
        return f"{self.gain:.2f}x so far{how}, about {self.expected} more to expect; {self.reason}"

    @property
    def far_off(self) -> list[str]:
        """The kernels whose rule was further off than `FAR_OFF`, ready to be reported."""
        return [
            f"{row.title}: {row.gain:.2f}x with {row.choice} in place of {row.rule_choice}, for {row.problem}"
            for row in self.rows
            if row.gain > 1 + FAR_OFF
        ]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headers and rows of a table of the kernels, those that take longest first."""
        rows = sorted(self.rows, key=lambda row: -row.count * row.rule)
        cells: list[tuple[str, ...]] = [
            (
                row.title,
                str(row.count),
                duration(row.rule),
                duration(row.best),
                duration(row.roof),
                f"{row.gain:.2f}",
                f"{row.trials} + {row.running}" if row.running else str(row.trials),
            )
            for row in rows
        ]
        return ("kernel", "runs", "rule", "best", "roof", "gain", "trials"), cells

    def progress(self) -> str:
        """One line on how far it is."""
        gain = f"{self.by_rule / self.tuned:.2f}x" if self.tuned else "1.00x"
        model = f"{duration(self.tuned)} of {duration(self.by_rule)}, {gain}"
        trials = counted(self.trials, "trial")
        if self.doing:
            return f"{model}; {trials}; {self.doing}"
        return f"{model}; {trials}, {self.left} left, about {self.expected} more to expect"

    def to_json(self) -> dict[str, Any]:
        return {
            "gain": self.gain,
            "measured": asdict(self.measured) if self.measured else None,
            "seconds_by_rule": self.by_rule,
            "seconds_tuned": self.tuned,
            "expected": self.hope / self.tuned if self.tuned else 0.0,
            "trials": self.trials,
            "spent_seconds": self.spent,
            "reason": self.reason,
            "withdrawn": self.withdrawn,
            "far_off": self.far_off,
            "curve": self.curve,
            "kernels": [{**vars(row), "gain": row.gain} for row in self.rows],
        }

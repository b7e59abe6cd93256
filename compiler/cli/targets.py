"""List the targets of every backend, and what this machine can do with them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.compiler.backend import Backend
    from lvc.compiler.cli.console import Console
    from lvc.compiler.errors import LvcError

SUMMARY = "list targets"


def configure(parser: argparse.ArgumentParser) -> None:
    """`lvc targets` has no options of its own."""


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.pipeline import catalogue

    found = [
        _Described(text, name, summary, *_abilities(catalogue.BACKENDS.get(name), text))
        for name in catalogue.BACKENDS.names()
        for text, summary in catalogue.BACKENDS.get(name).targets().items()
    ]
    rows = [(one.text, one.backend, "no" if one.missing else "yes", one.runs, one.summary) for one in found]
    console.table(("target", "backend", "builds here", "runs here", "what it is"), rows, "lllll")
    for missing in dict.fromkeys(str(one.missing) for one in found if one.missing):
        console.say(f"note: {missing}")
    console.json([one.to_json() for one in found])
    return 0


@dataclass(frozen=True)
class _Described:
    """A target, with what this machine lacks to build for it, and whether it runs here."""

    text: str
    backend: str
    summary: str
    missing: LvcError | None
    runs: str

    def to_json(self) -> dict[str, object]:
        missing = self.missing.to_json() if self.missing else None
        plain = {"target": self.text, "backend": self.backend, "summary": self.summary}
        return {**plain, "builds": missing is None, "missing": missing, "runs": self.runs}


def _abilities(backend: Backend, text: str) -> tuple[LvcError | None, str]:
    """What is missing to build, and where the code runs."""
    from lvc.compiler.backend import Place
    from lvc.compiler.errors import UsageError

    try:
        target = backend.parse_target(text)
    except UsageError as error:  # native, on a processor that is not known
        return error, Place.ELSEWHERE.value
    assert target is not None, text
    return backend.missing(target), backend.place(target).value

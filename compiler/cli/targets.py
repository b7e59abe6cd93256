"""List the targets of every backend."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console

SUMMARY = "list targets"


def configure(parser: argparse.ArgumentParser) -> None:
    """`lvc targets` has no options of its own."""


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.pipeline import catalogue

    rows = [
        (text, name, summary)
        for name in catalogue.BACKENDS.names()
        for text, summary in catalogue.BACKENDS.get(name).targets().items()
    ]
    console.table(("target", "backend", "what it is"), rows, "lll")
    console.json([{"target": text, "backend": name, "summary": summary} for text, name, summary in rows])
    return 0

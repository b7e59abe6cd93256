"""What a command says: results to stdout, talk and errors to stderr, bars only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from lvc.compiler.errors import LvcError

T = TypeVar("T")


class TerminalProgress:
    """Bars on stderr while it is a terminal; silence otherwise."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        if self._console.is_silent or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            yield from bars.track(items, description=description, total=total)

    def say(self, text: str) -> None:
        self._console.say(text)


class Console:
    """Where the words of one command go; nowhere while it ``is_silent``."""

    def __init__(self, json_wanted: bool = False) -> None:
        self.json_wanted = json_wanted
        self.is_silent = False
        self.progress = TerminalProgress(self)

    def result(self, text: str) -> None:
        """Print a result for people; nothing when JSON is wanted."""
        if not self.json_wanted and not self.is_silent:
            print(text)

    def json(self, data: Any) -> None:
        """Print the result as JSON, if that is wanted."""
        if self.json_wanted and not self.is_silent:
            print(json.dumps(data, indent=2, default=str), flush=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> None:
        """Print an aligned table as a result."""
        from lvc.compiler.text import table

        self.result(table(headers, rows, align))

    def say(self, text: str) -> None:
        """Talk: to stderr."""
        if not self.is_silent:
            print(text, file=sys.stderr, flush=True)

    def error(self, error: LvcError) -> None:
        """Print an error, made printable as tables are; as JSON on stdout too, when JSON is wanted."""
        self.json(error.to_json())
        from lvc.compiler.text import printable

        self.say("\n".join(map(printable, f"error: {error}".split("\n"))))

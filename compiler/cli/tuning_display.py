"""What tuning shows while it runs: a table on a terminal, elsewhere a line for each gain."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.tuning.account import Account

MOST_ROWS = 16


class Display:
    """Shows an account again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._gains: dict[str, float] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console as RichConsole
            from rich.live import Live

            self._live = Live(console=RichConsole(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, account: Account) -> None:
        """Show how things stand now."""
        if self._live:
            from rich.text import Text

            from lvc.compiler.text import table

            headers, rows = account.table()
            self._live.update(Text(f"{table(headers, rows[:MOST_ROWS], 'lr')}\n{account.progress()}"), refresh=True)
            return
        for row in account.rows:
            if row.gain > self._gains.get(row.key, 1.0):
                self._gains[row.key] = row.gain
                self._console.say(f"{row.title}: {row.gain:.2f}x; {account.progress()}")

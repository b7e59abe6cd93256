"""What tuning shows while it runs: a table on a terminal, elsewhere a line for each gain."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from lvc.compiler.cli.console import Console
    from lvc.compiler.tuning.account import Account

MOST_ROWS = 16
_SHORTEST = 8


class Display:
    """Shows an account again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._gains: dict[str, float] = {}
        self._terminal: RichConsole | None = None
        self._live: Any = None

    def __enter__(self) -> Self:
        if self._console.is_silent or not sys.stderr.isatty():
            return self
        from rich.console import Console as RichConsole
        from rich.live import Live

        terminal = RichConsole(stderr=True)
        if terminal.is_terminal and not terminal.is_dumb_terminal:
            self._terminal = terminal
            self._live = Live(console=terminal, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, account: Account) -> None:
        """Show how things stand now."""
        if self._terminal:
            from rich.text import Text

            width, height = self._terminal.size
            text = Text(screen(account, width, height), no_wrap=True, overflow="crop")
            self._live.update(text, refresh=True)
            return
        for row in account.rows:
            if row.gain > self._gains.get(row.key, 1.0):
                self._gains[row.key] = row.gain
                self._console.say(f"{row.title}: {row.gain:.2f}x; {account.progress()}")


def screen(account: Account, width: int, height: int) -> str:
    """A table of the kernels that take longest, titles cut so that it fits, and how far tuning is."""
    from lvc.compiler.text import counted, table

    headers, rows = account.table()
    shown = rows[: max(1, min(MOST_ROWS, height - 4))]
    excess = max(map(len, table(headers, shown, "lr").splitlines())) - width
    if excess > 0:
        longest = max(_SHORTEST, max(len(title) for title, *_ in shown) - excess)
        shown = [(_cut(title, longest), *rest) for title, *rest in shown]
    lines = [table(headers, shown, "lr")]
    if left := len(rows) - len(shown):
        lines.append(f"and {counted(left, 'kernel')} that take less")
    return "\n".join([*lines, account.progress()])


def _cut(title: str, most: int) -> str:
    """The end of a title, which is what tells a layer from others."""
    return title if len(title) <= most else f"…{title[1 - most :]}"

"""The one shape of an error: what went wrong, where, why, and what to do about it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, Self


class LvcError(Exception):
    """An error that a user can understand and act on.

    ``what`` is one line in lower case without a final stop. ``where`` names a file, a node and its origin;
    ``why`` and ``help`` are sentences of the same style. Any of the three may be missing.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", help: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.help = help

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (("at", self.where), ("why", self.why), ("help", self.help)):
            if text:
                first, *rest = text.splitlines()
                lines.append(f"  {label:<5} {first}")
                lines.extend(f"        {line}" for line in rest)
        return "\n".join(lines)

    def at(self, where: str) -> Self:
        """The same error, at another place."""
        moved = copy.copy(self)
        moved.where = where
        return moved

    def to_json(self) -> dict[str, str | int]:
        """Return the error as plain data for ``--json``."""
        return {"error": self.what, "where": self.where, "why": self.why, "help": self.help, "exit": self.exit_code}


class CompileError(LvcError):
    """The model could not be loaded, rewritten or built."""


class UsageError(LvcError):
    """The request itself is wrong: an option, a pipeline text, a target, a path."""

    exit_code = 2


class CheckError(LvcError):
    """The model was built, and a check that the user asked for failed."""

    exit_code = 3


def did_you_mean(typed: str, known: Iterable[str], most: int = 1) -> str:
    """Return ``did you mean 'x'? `` for the names that look most like what was typed; nothing if none does."""
    close = get_close_matches(typed, list(known), n=most)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""

"""Errors on their way from a board to the workstation, as plain text."""

from __future__ import annotations

from lvc.compiler.errors import CheckError, CompileError, LvcError, UsageError
from lvc.compiler.remote.message import Message, typed
from lvc.compiler.text import printable

_KINDS: tuple[type[LvcError], ...] = (CompileError, UsageError, CheckError)
_MOST = 4000


class Retired(CompileError):
    """A board that is asked no more: what it did is in ``what``, and in ``why``."""


class Refused(Retired):
    """What a board that works says it cannot do."""


def told(error: LvcError) -> Message:
    """The answer that says of an error what it is."""
    return Message({"error": error.to_json()})


def error_of(answer: Message) -> LvcError | None:
    """The error that an answer tells of; None if it is a result."""
    if "error" not in answer.header:
        return None
    fields = answer.get("error", dict)
    texts = [_shown(typed(str, fields.get(name), name)) for name in ("error", "where", "why", "help")]
    exit_code = typed(int, fields.get("exit"), "exit")
    kind = next((kind for kind in _KINDS if kind.exit_code == exit_code), CompileError)
    return kind(texts[0], where=texts[1], why=texts[2], help=texts[3])


def _shown(text: str) -> str:
    """A text of a board, which must not steer the terminal."""
    return "\n".join(map(printable, text[:_MOST].split("\n")))

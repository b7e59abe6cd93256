"""Tables of a TOML file, read key by key: keys have types, and one that nobody asked for is an error with a place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lvc.compiler.errors import UsageError, did_you_mean

T = TypeVar("T")

MOST_BYTES = 1 << 20
"""Of a recipe; a file that is larger is something else."""

_NOUNS: dict[type, str] = {str: "a text", int: "an integer", float: "a number", bool: "true or false", dict: "a table"}
_HEADER = re.compile(r"\s*\[(\[?)([^\[\]]+)\]")
_KEY = re.compile(r"\s*([\w.\"'-]+?)\s*=")


@dataclass(frozen=True)
class Source:
    """A TOML text, what it is called, and the command line's part in it: keys that ``--set`` gave, by path."""

    name: str
    text: str
    given: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def parse(self) -> dict[str, Any]:
        """Return the tables; `UsageError` with the line for a text that is no TOML."""
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            what, _, place = str(error).partition(" (at ")
            where = f"{self.name}, {place.rstrip(')')}" if place else self.name
            raise UsageError("the recipe is not sound TOML", where=where, why=what) from error
        except RecursionError as error:
            raise UsageError("the recipe is not sound TOML", where=self.name, why="it is nested too deep") from error

    def place(self, path: tuple[str | int, ...]) -> str:
        """Say where a key stands: its line, or the option that gave it."""
        names = tuple(part for part in path if isinstance(part, str))
        if names in self.given:
            return f"--set {self.given[names]}"
        line = self._line(path)
        return f"{self.name}, line {line}" if line else self.name

    def _line(self, path: tuple[str | int, ...]) -> int:
        """The line of a key, or of the nearest table around it that has one; 0 if none is found."""
        seen: dict[tuple[str | int, ...], int] = {}
        counts: dict[tuple[str | int, ...], int] = {}
        inside: tuple[str | int, ...] = ()
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                inside = _names(header[2])
                if header[1]:
                    counts[inside] = counts.get(inside, -1) + 1
                    inside = (*inside, counts[inside])
                seen.setdefault(inside, number)
            elif key := _KEY.match(line):
                seen.setdefault((*inside, *_names(key[1])), number)
        return next((seen[path[:end]] for end in range(len(path), 0, -1) if path[:end] in seen), 0)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


class Table:
    """One table. `take` each key that is known, then `finish`: what is left is a mistake."""

    def __init__(self, source: Source, values: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> None:
        self.source = source
        self.path = path
        self._values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def is_table(self, key: str) -> bool:
        """Whether a key holds a table."""
        return isinstance(self._values.get(key), dict)

    def is_integer(self, key: str) -> bool:
        """Whether a key holds an integer."""
        return type(self._values.get(key)) is int

    def is_given(self, key: str) -> bool:
        """Whether the command line gave a key, or what it is a part of."""
        names = tuple(part for part in (*self.path, key) if isinstance(part, str))
        return any(names[:end] in self.source.given for end in range(1, len(names) + 1))

    def place(self, key: str) -> str:
        """Where a key stands."""
        return self.source.place((*self.path, key))

    def take(self, key: str, kind: type[T], default: T | None = None) -> T | None:
        """Return the value of a key, which must be of a type; the default if it is missing. An integer is a number."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if kind is float and type(value) is int:
            return float(value)  # type: ignore[return-value]
        if type(value) is not kind:
            raise self.error(f"'{key}' must be {_NOUNS[kind]}", key, why=f"it is {_shown(value)}")
        return value

    def text(self, key: str) -> str:
        """Return a text that must be there, and not be empty."""
        found = self.take(key, str)
        if not found:
            raise self.error(f"'{key}' is {'missing' if found is None else 'empty'}{self._inside()}", key)
        return found

    def parsed(self, key: str, parse: Callable[[str], object]) -> str | None:
        """Return a text that ``parse`` takes; its `UsageError` gets the place. None if it is missing."""
        found = self.take(key, str)
        if found is not None:
            try:
                parse(found)
            except UsageError as error:
                raise error.at(self.place(key)) from error
        return found

    def number(self, key: str, least: float, most: float = float("inf")) -> float | None:
        """Return a number within bounds; None if it is missing."""
        found = self.take(key, float)
        if found is not None and not least <= found <= most:
            bounds = f"from {least:g}" + (f" to {most:g}" if most < float("inf") else "")
            raise self.error(f"'{key}' must be a number {bounds}", key, why=f"it is {found:g}")
        return found

    def table(self, key: str) -> Table:
        """Return a table inside; an empty one if it is missing."""
        return Table(self.source, self.take(key, dict) or {}, (*self.path, key))

    def tables(self, key: str) -> list[Table]:
        """Return an array of tables."""
        self._known.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.error(f"'{key}' must be tables", key, help=f"write [[{key}]] above each")
        return [Table(self.source, value, (*self.path, key, place)) for place, value in enumerate(values)]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; none if it is missing."""
        self._known.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(f"'{key}' must be a list of texts", key, why=f"it is {_shown(values)}")
        return tuple(values)

    def one_of(self, key: str, known: Sequence[str], default: str) -> str:
        """Return one of some texts."""
        found = self.take(key, str) or default
        if found not in known:
            raise self.error(f"'{key}' cannot be '{found}'", key, help=_suggestion(found, known))
        return found

    def finish(self) -> None:
        """Raise `UsageError` for the first key that nobody took."""
        for key in self._values:
            if key not in self._known:
                raise self.error(f"there is no key '{key}'{self._inside()}", key, help=_suggestion(key, self._known))

    def error(self, what: str, key: str = "", *, why: str = "", help: str = "") -> UsageError:
        """The error for a key of the table, or for the table."""
        where = self.place(key) if key else self.source.place(self.path)
        return UsageError(what, where=where, why=why, help=help)

    def _inside(self) -> str:
        names = [part for part in self.path if isinstance(part, str)]
        return f" in [{'.'.join(names)}]" if names else ""


def _suggestion(typed: str, known: Sequence[str]) -> str:
    return f"{did_you_mean(typed, known)}known: {', '.join(known) or 'none'}"


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else f"{value!r:.60}"

"""The one written form of a pipeline: ``fold-batch-norm,prune-channels{macs=0.5 skip="a,b"}``, read and written.

    pipeline := [ step { "," step } ]
    step     := NAME [ "{" { KEY "=" VALUE } "}" ]        a NAME may be a preset, which stands for its text
    VALUE    := bare characters without space, quote or brace | '"' any characters, \\" for a quote '"'

Values are converted to the type of the pass's field: bool, int, float, str, Literal, an Optional of these, or a tuple
of these with its parts separated by commas.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from lvc.compiler.errors import UsageError, did_you_mean
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Pass
from lvc.compiler.pipeline.registry import Classes
from lvc.compiler.tuning.postgres import without_passwords

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BARE = re.compile(r'[^\s"{}]+')
_SPACE = re.compile(r"\s*")


def parse_passes(text: str, extra: Iterable[type[Pass]] = ()) -> tuple[Pass, ...]:
    """Read a pipeline text; every mistake raises `UsageError` with a caret under it.

    ``extra`` are passes that the text may name besides those of the catalogue.
    """
    added = {kind.name: kind for kind in extra}

    def find(name: str) -> type[Pass] | None:
        return added.get(name) or catalogue.PASSES.find(name)

    known = [*catalogue.PASSES.names(), *added, *catalogue.PRESETS]
    reader = _Reader(text, find, known, "pass", "the pipeline text")
    return tuple(reader.listed(reader.step))


def parse_items(text: str, kind: Classes[T]) -> list[T]:
    """Read some ``NAME{KEY=VALUE}`` of a kind, separated by commas."""
    reader = _Reader(text, kind.find, kind.names(), kind.noun, f"the {kind.noun}s")
    return reader.listed(lambda start: [reader.item(reader.match(_NAME, f"the name of a {kind.noun}"), start)])


def parse_item(text: str, kind: Classes[Any]) -> Any:
    """Read one ``NAME{KEY=VALUE}`` of a kind."""
    reader = _Reader(text, kind.find, kind.names(), kind.noun, f"the {kind.noun}")
    made = reader.item(reader.match(_NAME, f"the name of a {kind.noun}"), 0)
    if reader.at < len(text):
        reader.fail(reader.at, f"nothing can follow the {kind.noun}")
    return made


def format_item(item: Any) -> str:
    """Write a pass, or another named dataclass, with the options that differ from their defaults."""
    parts = []
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if value != field.default:
            parts.append(f"{field.name}={_format_value(value)}")
    return str(item.name) + ("{" + " ".join(parts) + "}" if parts else "")


def with_option(item: Any, name: str, text: str) -> Any:
    """Return a pass, or another named dataclass, with one more option, as it is written.

    `UsageError` for an option that it does not have, or that cannot be so.
    """
    key = name.replace("-", "_")
    known = sorted(field.name for field in item.options())
    if key not in known:
        help = did_you_mean(key, known).rstrip() or "known: " + (", ".join(known) or "none")
        raise UsageError(f"{item.name} has no option '{name}'", help=help)
    try:
        return dataclasses.replace(item, **{key: _convert(text, typing.get_type_hints(type(item))[key])})
    except ValueError as error:
        raise UsageError(f"{item.name}: option '{name}' {error}") from None
    except UsageError as error:
        raise UsageError(f"{item.name}: {error.what}", why=error.why, help=error.help) from error


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    text = ",".join(_plain(part) for part in value) if isinstance(value, tuple) else _plain(value)
    if text and _BARE.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class _Reader:
    def __init__(
        self, text: str, find: Callable[[str], type[Any] | None], known: Sequence[str], noun: str, place: str
    ) -> None:
        self.text = text
        self.find = find
        self.known = known
        self.noun = noun
        self.place = place
        self.at = 0

    def listed(self, read: Callable[[int], list[Any]]) -> list[Any]:
        """All that ``read`` finds at places with commas between them."""
        found: list[Any] = []
        self.space()
        while self.at < len(self.text):
            found.extend(read(self.at))
            self.space()
            if self.at == len(self.text):
                break
            self.expect(",")
            self.space()
            if self.at == len(self.text):
                self.fail(self.at, f"a {self.noun} is missing after the comma")
        return found

    def step(self, start: int) -> list[Pass]:
        name = self.match(_NAME, "the name of a pass")
        if name in catalogue.PRESETS:
            if self.text[self.at : self.at + 1] == "{":
                self.fail(self.at, f"the preset '{name}' takes no options")
            return list(parse_passes(catalogue.PRESETS[name]))
        return [self.item(name, start)]

    def item(self, name: str, start: int) -> Any:
        """Make what was named just before this place, at ``start``, with the options that follow."""
        kind = self.find(name)
        if kind is None:
            self.fail(start, f"there is no {self.noun} '{name}'", len(name), known=self.known, typed=name)
        options: dict[str, Any] = {}
        if self.text[self.at : self.at + 1] == "{":
            self.at += 1
            options = self.options(kind)
        try:
            return kind(**options)
        except UsageError as error:
            self.fail(start, f"{name}: {error.what}", self.at - start, help=error.help)

    def options(self, kind: type[Any]) -> dict[str, Any]:
        hints = typing.get_type_hints(kind)
        fields = {field.name for field in kind.options()}
        values: dict[str, Any] = {}
        self.space()
        while self.text[self.at : self.at + 1] != "}":
            if self.at == len(self.text):
                self.fail(self.at, f"the options of '{kind.name}' are not closed: a '}}' is missing")
            start = self.at
            key = self.match(_NAME, "the name of an option").replace("-", "_")
            if key not in fields:
                self.fail(start, f"{kind.name} has no option '{key}'", len(key), known=sorted(fields), typed=key)
            if key in values:
                self.fail(start, f"option '{key}' is given twice", len(key))
            self.expect("=")
            start = self.at
            raw = self.value()
            try:
                values[key] = _convert(raw, hints[key])
            except ValueError as error:
                self.fail(start, f"{kind.name}: option '{key}' {error}", max(1, self.at - start))
            self.space()
        self.at += 1
        return values

    def value(self) -> str:
        if self.text[self.at : self.at + 1] != '"':
            value = self.match(_BARE, "a value")
            if self.text[self.at : self.at + 1] == "{":
                self.fail(self.at, "a value with braces must be quoted", help=f'for example "{value}{{...}}"')
            return value
        start, self.at, out = self.at, self.at + 1, ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return out
            if char == "\\" and self.at + 1 < len(self.text):
                self.at += 1
                char = self.text[self.at]
            out += char
            self.at += 1
        self.fail(start, "the quote is not closed")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            self.fail(self.at, f"expected {what}")
        self.at = found.end()
        return found.group()

    def expect(self, char: str) -> None:
        if self.text[self.at : self.at + 1] != char:
            self.fail(self.at, f"expected '{char}'")
        self.at += 1

    def space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def fail(
        self,
        at: int,
        what: str,
        length: int = 1,
        *,
        known: Sequence[str] | None = None,
        typed: str = "",
        help: str = "",
    ) -> typing.NoReturn:
        if known is not None:
            help = did_you_mean(typed, known).rstrip() or "known: " + (", ".join(known) or "none")
        line = without_passwords(self.text.replace("\n", " "))
        raise UsageError(what, where=self.place, why=f"{line}\n{' ' * at}{'^' * length}", help=help)


def _convert(text: str, kind: Any) -> Any:
    """Convert an option's text to the type of its field; `ValueError` says what was expected."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text == "none" and type(None) in parts:
            return None
        return _convert(text, next(part for part in parts if part is not type(None)))
    if origin is tuple:
        return tuple(_convert(part.strip(), parts[0]) for part in text.split(",") if part.strip())
    if origin is typing.Literal:
        if text not in [str(part) for part in parts]:
            raise ValueError(f"must be one of {', '.join(map(str, parts))}, not '{text}'")
        return next(part for part in parts if str(part) == text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"must be true or false, not '{text}'")
        return text == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be {'an integer' if kind is int else 'a number'}, not '{text}'") from None
    assert kind is str, f"option type {kind} has no written form"
    return text

"""Object files in ELF, little-endian with 32 or 64 bits: renaming what they define, leaving out what debuggers read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

_SYMBOLS, _STRINGS, _RELA, _NO_BITS, _REL, _GROUP, _ADDRESS_SIGNIFICANCE = 2, 3, 4, 8, 9, 17, 0x6FFF4C03
_ALLOCATED, _EXECUTABLE, _INFO_IS_SECTION = 2, 4, 0x40
_RESERVED_SECTIONS = 0xFF00
_FOR_DEBUGGERS = (".debug", ".comment", ".eh_frame", ".ARM.ex")  # and for exceptions, of which kernels throw none
_SECTIONS_AT, _SECTION_COUNT, _NAMES_SECTION = 6, 12, 13  # places in the header


@dataclass(frozen=True)
class _Layout:
    """The records of one size of addresses, a symbol's fields in their order, and how a relocation names its symbol."""

    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    fields: tuple[str, ...]
    reference: str
    shift: int


_LAYOUTS = {
    1: _Layout(
        struct.Struct("<16sHHIIIIIHHHHHH"),
        struct.Struct("<IIIIIIIIII"),
        struct.Struct("<IIIBBH"),
        fields=("name", "value", "size", "info", "other", "section"),
        reference="<I",
        shift=8,
    ),
    2: _Layout(
        struct.Struct("<16sHHIQQQIHHHHHH"),
        struct.Struct("<IIQQQQIIQQ"),
        struct.Struct("<IBBHQQ"),
        fields=("name", "info", "other", "section", "value", "size"),
        reference="<Q",
        shift=32,
    ),
}


@dataclass(frozen=True)
class _Section:
    """A section with its content in the file, of which some with a ``size`` have none."""

    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int
    content: bytes

    @property
    def is_kept(self) -> bool:
        """Whether a program needs it, or a linker to make one."""
        name = self.name.removeprefix(".rela").removeprefix(".rel")
        return not name.startswith(_FOR_DEBUGGERS) and self.type not in (_STRINGS, _ADDRESS_SIGNIFICANCE)


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    rest: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        return self.rest["info"] >> 4 == 0

    @property
    def is_defined(self) -> bool:
        return self.section != 0


@dataclass(frozen=True)
class ObjectFile:
    """A relocatable object file. What it is read from has to be sound."""

    header: bytes
    sections: tuple[_Section, ...]
    symbols: tuple[_Symbol, ...]

    @classmethod
    def read(cls, content: bytes) -> ObjectFile:
        layout = _LAYOUTS[content[4]]
        header = layout.header.unpack_from(content)
        start, count = header[_SECTIONS_AT], header[_SECTION_COUNT]
        rows = [layout.section.unpack_from(content, start + number * layout.section.size) for number in range(count)]
        bodies = [b"" if row[1] == _NO_BITS else content[row[4] : row[4] + row[5]] for row in rows]
        names = bodies[header[_NAMES_SECTION]]
        sections = tuple(
            _Section(_text(names, name), kind, flags, size, link, info, alignment, entry_size, body)
            for (name, kind, flags, _, _, size, link, info, alignment, entry_size), body in zip(
                rows, bodies, strict=True
            )
        )
        table = next(section for section in sections if section.type == _SYMBOLS)
        symbols = []
        for values in layout.symbol.iter_unpack(table.content):
            found = dict(zip(layout.fields, values, strict=True))
            symbols.append(_Symbol(_text(bodies[table.link], found.pop("name")), found.pop("section"), found))
        return cls(content[: layout.header.size], sections, tuple(symbols))

    def renamed(self, name: Callable[[str], str]) -> ObjectFile:
        """The same with other names for what it defines for other files."""
        symbols = [s if s.is_local or not s.is_defined else replace(s, name=name(s.name)) for s in self.symbols]
        return replace(self, symbols=tuple(symbols))

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The names that other files have to define."""
        read = (self.symbols[number] for section in self.sections if section.is_kept for number in self._read(section))
        return frozenset(symbol.name for symbol in read if not symbol.is_defined)

    @property
    def code_bytes(self) -> int:
        """Bytes of instructions."""
        return sum(section.size for section in self.sections if section.flags & _EXECUTABLE)

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants that instructions read."""
        loaded = (s for s in self.sections if s.is_kept and s.flags & _ALLOCATED and s.type != _NO_BITS)
        return sum(section.size for section in loaded if not section.flags & _EXECUTABLE)

    def written(self) -> bytes:
        """The file, without what only debuggers read."""
        return _Writer(self).file()

    def is_kept(self, symbol: _Symbol) -> bool:
        """Whether it stays: what nothing is left to read it is left out."""
        if symbol.is_defined:
            return symbol.section >= _RESERVED_SECTIONS or self.sections[symbol.section].is_kept
        return not symbol.name or symbol.name in self.wanted

    def _read(self, section: _Section) -> Iterator[int]:
        """The numbers of the symbols that the relocations of a section read."""
        if section.type in (_REL, _RELA):
            layout = _LAYOUTS[self.header[4]]
            for place in range(struct.calcsize(layout.reference), len(section.content), section.entry_size):
                (value,) = struct.unpack_from(layout.reference, section.content, place)
                yield value >> layout.shift


class _Writer:
    """Numbers the sections and symbols that are kept anew, in their order."""

    def __init__(self, file: ObjectFile) -> None:
        self._file, self._layout = file, _LAYOUTS[file.header[4]]
        self._kept = [number for number, section in enumerate(file.sections) if section.is_kept]
        self._sections = {number: place for place, number in enumerate(self._kept)}
        numbered = [number for number, symbol in enumerate(file.symbols) if file.is_kept(symbol)]
        self._symbols = {number: place for place, number in enumerate(numbered)}
        self._strings, self._places = bytearray(b"\0"), {"": 0}

    def file(self) -> bytes:
        layout, body, rows = self._layout, bytearray(self._file.header), []
        for number in self._kept:
            section = self._file.sections[number]
            content = self._content(section)
            body += bytes(-len(body) % max(1, section.alignment))
            size = section.size if section.type == _NO_BITS else len(content)
            where = (self._string(section.name), section.type, section.flags, 0, len(body) if section.type else 0, size)
            rows.append((*where, self._link(section), self._info(section), section.alignment, section.entry_size))
            body += content
        name = self._string(".strtab")
        rows.append((name, _STRINGS, 0, 0, len(body), len(self._strings), 0, 0, 1, 0))
        body += self._strings
        body += bytes(-len(body) % 8)
        header = list(layout.header.unpack(self._file.header))
        header[_SECTIONS_AT], header[_SECTION_COUNT], header[_NAMES_SECTION] = len(body), len(rows), len(self._kept)
        body[: layout.header.size] = layout.header.pack(*header)
        return bytes(body) + b"".join(layout.section.pack(*row) for row in rows)

    def _link(self, section: _Section) -> int:
        return len(self._kept) if section.type == _SYMBOLS else self._sections.get(section.link, 0)

    def _info(self, section: _Section) -> int:
        if section.type == _SYMBOLS:
            return sum(self._file.symbols[number].is_local for number in self._symbols)
        if section.type in (_REL, _RELA) or section.flags & _INFO_IS_SECTION:
            return self._sections[section.info]
        return self._symbols[section.info] if section.type == _GROUP else section.info

    def _content(self, section: _Section) -> bytes:
        """That of a section, with the numbers of sections and symbols as they are now."""
        if section.type == _SYMBOLS:
            return b"".join(map(self._symbol, self._symbols))
        if section.type == _GROUP:
            flags, *members = (value for (value,) in struct.iter_unpack("<I", section.content))
            return struct.pack(f"<{1 + len(members)}I", flags, *(self._sections[member] for member in members))
        if section.type not in (_REL, _RELA):
            return section.content
        content, shift = bytearray(section.content), self._layout.shift
        for place in range(struct.calcsize(self._layout.reference), len(content), section.entry_size):
            (value,) = struct.unpack_from(self._layout.reference, content, place)
            moved = self._symbols[value >> shift] << shift | value & (1 << shift) - 1
            struct.pack_into(self._layout.reference, content, place, moved)
        return bytes(content)

    def _symbol(self, number: int) -> bytes:
        symbol = self._file.symbols[number]
        section = self._sections.get(symbol.section, symbol.section)
        values = {**symbol.rest, "name": self._string(symbol.name), "section": section}
        return self._layout.symbol.pack(*(values[name] for name in self._layout.fields))

    def _string(self, name: str) -> int:
        """Where a name lies, each once."""
        if name not in self._places:
            self._places[name] = len(self._strings)
            self._strings += name.encode() + b"\0"
        return self._places[name]


def _text(table: bytes, place: int) -> str:
    return table[place : table.index(0, place)].decode()

"""Object files in Mach-O, little-endian with 64 bits: what they define, what they want, and how large they are."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = 0xFEEDFACF
ARM64 = 0x0100000C

_HEADER, _COMMAND = struct.Struct("<8I"), struct.Struct("<2I")
_SEGMENT, _SECTION = struct.Struct("<2I16s4Q4I"), struct.Struct("<16s16s2Q8I")
_TABLE, _SYMBOL = struct.Struct("<6I"), struct.Struct("<I2BHQ")
_IS_SEGMENT, _IS_TABLE = 0x19, 0x2
_CODE, _NO_BYTES, _FOR_DEBUGGERS, _EXTERNAL, _KIND, _DEBUG_SYMBOL = 0x80000400, 0x1, 0x02000000, 0x1, 0xE, 0xE0


@dataclass(frozen=True)
class MachObject:
    """A relocatable object file. What it is read from has to be sound; names are those of C."""

    content: bytes
    processor: int
    defined: frozenset[str]
    wanted: frozenset[str]
    code_bytes: int
    constant_bytes: int

    @classmethod
    def read(cls, content: bytes) -> MachObject:
        magic, processor, _, _, count, *_ = _HEADER.unpack_from(content)
        assert magic == MAGIC
        place, defined, wanted, code, constants = _HEADER.size, set[str](), set[str](), 0, 0
        for _ in range(count):
            command, size = _COMMAND.unpack_from(content, place)
            if command == _IS_SEGMENT:
                for length, flags in _sections(content, place):
                    code += length if flags & _CODE else 0
                    constants += 0 if flags & (_CODE | _FOR_DEBUGGERS) or flags & 0xFF == _NO_BYTES else length
            elif command == _IS_TABLE:
                for name, is_defined in _symbols(content, place):
                    (defined if is_defined else wanted).add(name.removeprefix("_"))
            place += size
        return cls(content, processor, frozenset(defined), frozenset(wanted), code, constants)

    def written(self) -> bytes:
        """The file."""
        return self.content


def _sections(content: bytes, place: int) -> list[tuple[int, int]]:
    """The bytes and the flags of each section of a segment."""
    count = _SEGMENT.unpack_from(content, place)[9]
    rows = (_SECTION.unpack_from(content, place + _SEGMENT.size + i * _SECTION.size) for i in range(count))
    return [(row[3], row[8]) for row in rows]


def _symbols(content: bytes, place: int) -> list[tuple[str, bool]]:
    """The names that are known outside, and whether the file defines them."""
    _, _, table, count, strings, size = _TABLE.unpack_from(content, place)
    names, found = content[strings : strings + size], []
    for number in range(count):
        name, kind, _, _, _ = _SYMBOL.unpack_from(content, table + number * _SYMBOL.size)
        if kind & _EXTERNAL and not kind & _DEBUG_SYMBOL:
            found.append((names[name : names.index(0, name)].decode(), bool(kind & _KIND)))
    return found

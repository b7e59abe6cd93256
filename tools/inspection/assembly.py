"""Object code as lists of instructions, by whichever disassembler knows the processor."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvc.compiler.errors import CompileError

DISASSEMBLERS = {
    "x86": ("objdump", "llvm-objdump"),
    "aarch64": ("aarch64-linux-gnu-objdump", "llvm-objdump"),
}
_MACHINES = {62: "x86", 183: "aarch64"}  # e_machine of an ELF file
_PREFIXES = ("{vex}", "{evex}", "bnd", "cs", "data16", "ds", "notrack", "rep", "repz")
_FUNCTION = re.compile(r"[0-9a-f]+ <(?P<name>.+)>:")
_LINE = re.compile(r"\s*(?P<address>[0-9a-f]+):\s+(?P<text>\S.*)")
_COMMENT = re.compile(r"\s*(?:<[^>]*>|#\s.*|//.*)")
_COMMA = re.compile(r",\s*(?![^(\[{]*[)\]}])")  # none inside brackets


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it stands in its section, its name and its operands as they are written (AT&T's order on
    x86, so that the last one is written to)."""

    address: int
    name: str
    operands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    """A function: its symbol, the family of its processor, and its instructions in order of address."""

    name: str
    family: str
    instructions: tuple[Instruction, ...]


def functions(code: bytes) -> list[Function]:
    """The functions of an object file; `CompileError` where no disassembler can read it."""
    family = _MACHINES.get(int.from_bytes(code[18:20], "little"), "") if code[:4] == b"\x7fELF" else ""
    if not family:
        raise CompileError("this is no object file of a processor that can be inspected", why="known: x86, aarch64")
    return list(parse(_disassembly(code, family), family))


def parse(text: str, family: str) -> Iterator[Function]:
    """Read what a disassembler wrote: a line with the name of a function, then one for each instruction."""
    name, found = "", list[Instruction]()
    for line in text.splitlines():
        if start := _FUNCTION.fullmatch(line.strip()):
            if found:
                yield Function(name, family, tuple(found))
            name, found = start["name"], []
        elif name and (match := _LINE.match(line)):
            found.append(_instruction(int(match["address"], 16), match["text"]))
    if found:
        yield Function(name, family, tuple(found))


def _instruction(address: int, text: str) -> Instruction:
    words = _COMMENT.sub("", text).split(maxsplit=1)
    while len(words) > 1 and words[0] in _PREFIXES:
        words = words[1].split(maxsplit=1)
    operands = _COMMA.split(words[1].strip()) if len(words) > 1 else []
    return Instruction(address, words[0], tuple(operand.strip() for operand in operands))


def _disassembly(code: bytes, family: str) -> str:
    with tempfile.TemporaryDirectory(prefix="lvc-inspect-") as folder:
        file = Path(folder) / "kernel.o"
        file.write_bytes(code)
        for program in filter(None, map(shutil.which, DISASSEMBLERS[family])):
            command = [program, "--disassemble", "--no-show-raw-insn", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and ">:" in done.stdout:
                return done.stdout
    names = " or ".join(DISASSEMBLERS[family])
    raise CompileError(f"no disassembler for {family} is there", why=f"looked for {names}", help="install binutils")

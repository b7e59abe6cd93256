"""What instructions mean for the account of a loop, for each family of processors."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from inspection.assembly import Function, Instruction

Kind = frozenset[str]


class Meaning(ABC):
    """How to read the instructions of a family."""

    @abstractmethod
    def kind(self, one: Instruction) -> Kind:
        """All that an instruction is: ``multiply_adds`` of vectors, ``sums`` (what adds to the vector that it writes),
        ``loads`` and ``stores`` of vectors (broadcasts are loads), ``spills`` (vectors to and from fixed places on the
        stack), ``pointers`` (anything else there), ``moves`` from one vector register to another."""

    @abstractmethod
    def written(self, one: Instruction) -> str:
        """The vector register that an instruction writes, by one name for all its widths; empty if none."""

    @abstractmethod
    def read(self, one: Instruction) -> str:
        """The vector register that a move reads."""

    @abstractmethod
    def target(self, one: Instruction) -> int | None:
        """The address that a jump goes to; None for anything else."""

    @abstractmethod
    def is_jump(self, one: Instruction) -> bool:
        """Whether the next instruction may not follow."""

    @abstractmethod
    def is_end(self, one: Instruction) -> bool:
        """Whether the next instruction never follows."""


class _X86(Meaning):
    _REGISTER = re.compile(r"%[xyz]mm(\d+)")
    _FUSED = re.compile(r"vfn?m(add|sub)\d+p[sd]|vpdpbusds?|vpdpwssds?|vdpbf16ps")
    _PRODUCT = re.compile(r"v?pmaddwd|v?pmaddubsw|mulps")  # of AVX2 and SSE; additions follow
    _ADDITION = re.compile(r"v?paddd|v?addps")
    _STACK = re.compile(r"(-?0x[0-9a-f]+)?\(%rsp\)(\{.*\})?")
    _MOVE = re.compile(r"v?mov(ap[sd]|up[sd]|dq[au]\d*)")
    _NO_ACCESS = re.compile(r"lea.*|nop.*|prefetch.*|call.*|j.*")
    _COMPARES = re.compile(r"cmp.*|test.*|v?u?comis[sd]|push.*|v?ptest")

    def kind(self, one: Instruction) -> Kind:
        vectors = any(self._REGISTER.search(operand) for operand in one.operands)
        found = set()
        if self._FUSED.fullmatch(one.name):
            found |= {"multiply_adds", "sums"}
        if self._PRODUCT.fullmatch(one.name):
            found.add("multiply_adds")
        if self._ADDITION.fullmatch(one.name) and (len(one.operands) < 3 or one.operands[-1] in one.operands[:-1]):
            found.add("sums")
        memory = next((operand for operand in one.operands if "(" in operand), "")
        if not memory or self._NO_ACCESS.fullmatch(one.name):
            is_move = vectors and self._MOVE.fullmatch(one.name) and "{" not in one.operands[-1]
            return frozenset(found | ({"moves"} if is_move else set()))
        if self._STACK.fullmatch(memory):
            return frozenset(found | {"spills" if vectors else "pointers"})
        is_store = memory == one.operands[-1] and not self._COMPARES.fullmatch(one.name)
        return frozenset(found | ({"stores" if is_store else "loads"} if vectors else set()))

    def written(self, one: Instruction) -> str:
        register = self._REGISTER.match(one.operands[-1]) if one.operands else None
        return register[1] if register else ""

    def read(self, one: Instruction) -> str:
        register = self._REGISTER.match(one.operands[0])
        return register[1] if register else ""

    def target(self, one: Instruction) -> int | None:
        if not one.name.startswith("j") or not one.operands or one.operands[0].startswith("*"):
            return None
        return int(one.operands[0], 16)

    def is_jump(self, one: Instruction) -> bool:
        return one.name.startswith("j") or self.is_end(one)

    def is_end(self, one: Instruction) -> bool:
        return one.name.startswith(("jmp", "ret", "ud2"))


@dataclass(frozen=True)
class _Aarch64(Meaning):
    """``has_frame`` where x29 points into the stack; else it is a register like any other."""

    has_frame: bool = True

    _REGISTER = re.compile(r"\{?\s*[vqds](\d+)\b")
    _MULTIPLY_ADD = re.compile(r"fml[as]|ml[as]|[su]ml[as]l2?|us?dot|sdot|bfdot|bfml[a-z]+|[us]+mmla|bfmmla")
    _STACK = re.compile(r"\[(?P<base>sp|x29)(, #-?(0x)?[0-9a-f]+)?\]!?")
    _JUMP = re.compile(r"b|br|b\..+|b(eq|ne|l[oste]|g[te]|h[is]|mi|pl|v[sc]|c[sc])|cbn?z|tbn?z")

    def kind(self, one: Instruction) -> Kind:
        vectors = any(self._REGISTER.match(operand) for operand in one.operands)
        if self._MULTIPLY_ADD.fullmatch(one.name) and "." in one.operands[0]:
            return frozenset({"multiply_adds", "sums"})
        memory = next((operand for operand in one.operands if operand.startswith("[")), "")
        if memory and one.name.startswith(("ld", "st")):
            if (found := self._STACK.fullmatch(memory)) and (found["base"] == "sp" or self.has_frame):
                return frozenset({"spills" if vectors else "pointers"})
            return frozenset({"loads" if one.name.startswith("ld") else "stores"} if vectors else ())
        if one.name in ("add", "fadd") and vectors and one.operands[0] in one.operands[1:]:
            return frozenset({"sums"})
        is_move = one.name in ("mov", "fmov") and len(one.operands) == 2 and all(".16b" in o for o in one.operands)
        return frozenset({"moves"} if is_move else ())

    def written(self, one: Instruction) -> str:
        if not one.operands or one.name.startswith(("st", "cmp", "fcmp")):
            return ""
        register = self._REGISTER.match(one.operands[0])
        return register[1] if register else ""

    def read(self, one: Instruction) -> str:
        register = self._REGISTER.match(one.operands[1])
        return register[1] if register else ""

    def target(self, one: Instruction) -> int | None:
        if not self._JUMP.fullmatch(one.name) or one.name == "br":
            return None
        return int(one.operands[-1], 16)

    def is_jump(self, one: Instruction) -> bool:
        return bool(self._JUMP.fullmatch(one.name)) or self.is_end(one)

    def is_end(self, one: Instruction) -> bool:
        return one.name in ("b", "br", "ret", "udf")


def meaning_of(function: Function) -> Meaning:
    """How to read the instructions of a function."""
    if function.family == "x86":
        return _X86()
    return _Aarch64(any(one.operands[:2] == ("x29", "sp") for one in function.instructions))

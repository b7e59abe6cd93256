"""How fast loops of aarch64 go by llvm-mca: an estimate, by LLVM's model of a core's pipelines, which has no caches."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from inspection.assembly import Instruction
from inspection.loops import Loop
from lvc.compiler.errors import CompileError

PROGRAMS = ("llvm-mca-19", "llvm-mca-20", "llvm-mca-21", "llvm-mca-22")
TURNS = 200
STREAM = range(8, 32)  # registers of products that do not depend on each other: more than any core has in flight
_CYCLES = re.compile(r"^Total Cycles:\s+(\d+)", re.MULTILINE)
_PRODUCT_OF_FLOATS = re.compile(r"^fml([as])\b")


@dataclass(frozen=True)
class Core:
    """What estimates know of a core: LLVM's scheduling ``model``, and for time the ``clock`` in GHz and the bytes a
    second of memory of a usual board.

    ``whole`` where the model lets a product of floats take half as long as on the core, by Arm's guide, and gives those
    of integers, which take the same there, the right time.
    """

    model: str
    clock: float
    bandwidth: float
    whole: bool = False


# LLVM's own model of Cortex-A53 makes every load wait for all multiply-adds before it, which the core does not
_IN_ORDER = Core("cortex-a55", 1.8, 4e9, whole=True)
CORES = {
    "aarch64": _IN_ORDER,
    "cortex-a53": Core("cortex-a55", 1.2, 2e9, whole=True),  # Raspberry Pi 3
    "cortex-a55": _IN_ORDER,
    "cortex-a72": Core("cortex-a72", 1.5, 4e9),  # Raspberry Pi 4
    "cortex-a76": Core("neoverse-n1", 2.4, 12e9),  # Raspberry Pi 5
    "cortex-x1": Core("neoverse-v1", 2.8, 20e9),
    "neoverse-n1": Core("neoverse-n1", 2.5, 20e9),
    "neoverse-v1": Core("neoverse-v1", 2.6, 25e9),
    "neoverse-v2": Core("neoverse-v2", 2.8, 30e9),
    "apple-m1": Core("apple-m1", 3.2, 60e9),
}
"""By the names of targets; LLVM 19 has no model of its own for Cortex-A76 and Cortex-X1."""


@cache
def program() -> str:
    """llvm-mca, of a release whose models of ARM are known; empty where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), "")


def core_of(cpu: str) -> Core | None:
    """What is known of a target's core; None without it, or without llvm-mca."""
    return CORES.get(cpu) if program() else None


def cycles(loop: Loop, core: Core) -> float:
    """Cycles of one turn of a loop, on the average of many."""
    return _measured(tuple(_written(one, loop) for one in loop.instructions), core)


def peak_cycles(loop: Loop, core: Core) -> float:
    """The cycles that the multiply-adds of a loop take if nothing else stands there and none waits for another."""
    return sum(_alone(one.name, _form(one), core) for one in loop.instructions if is_product(one, loop))


def is_product(one: Instruction, loop: Loop) -> bool:
    """Whether an instruction of a loop multiplies and adds vectors."""
    return "multiply_adds" in loop.meaning.kind(one)


@cache
def _measured(lines: tuple[str, ...], core: Core) -> float:
    command = [program(), "-mtriple=aarch64", f"-mcpu={core.model}", "-mattr=+v8.6a,+fullfp16"]
    text = "\n".join(_PRODUCT_OF_FLOATS.sub(r"ml\1", line) if core.whole else line for line in lines) + "\n"
    command.append(f"-iterations={TURNS}")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = _CYCLES.search(done.stdout)
    if done.returncode or not found:
        raise CompileError(f"{command[0]} cannot read a loop for {core.model}", why=done.stderr.strip()[:200])
    return int(found[1]) / TURNS


@cache
def _alone(name: str, form: tuple[str, ...], core: Core) -> float:
    first, *rest = form
    factors = ", ".join(f"v0{arrangement}" for arrangement in rest)
    return _measured(tuple(f"{name} v{number}{first}, {factors}" for number in STREAM), core) / len(STREAM)


def _form(one: Instruction) -> tuple[str, ...]:
    """What stands behind the registers: the arrangement of their lanes, or one of them."""
    return tuple(re.sub(r"\[\d+\]", "[0]", operand[operand.index(".") :]) for operand in one.operands)


def _written(one: Instruction, loop: Loop) -> str:
    """An instruction in the assembler's language; where a jump goes does not matter."""
    operands = one.operands if loop.meaning.target(one) is None else (*one.operands[:-1], "0")
    return f"{one.name} {', '.join(operands)}"

"""Targets: their texts, the instruction sets behind each, and what this machine has.

A text is a processor's name, and the instruction sets that code may use beyond its own: ``cortex-a72``,
``aarch64+dotprod+fp16``. ``+threads=16`` has the work of each kernel cut for so many threads.

``native`` is detected, never guessed: the instruction sets are those that the operating system reports, and a CPU name
is used only when the processor says that it is one and has all its instruction sets; otherwise the best level of the
architecture whose instruction sets are all there. ``LVC_NATIVE`` names a lesser processor for a machine to behave as.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import replace

from lvc.backends.tvm.cpu.host import (
    cpuinfo,
    host_architecture,
    host_features,
    host_machine,
    processor_name,
    stand_in,
)
from lvc.backends.tvm.cpu.machine import Machine
from lvc.backends.tvm.cpu.processor import Info, Processor
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.vector import Vector
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError

NATIVE = "native"
MOST_THREADS = 1024
_THREADS = "threads="


def target_texts() -> dict[str, str]:
    """Every target text that this device takes, with one line about it."""
    return {NATIVE: "the processor of this machine"} | {name: cpu.line for name, cpu in CPUS.items()}


def parse_target(text: str) -> Target | None:
    """Return the target of a text, or None; `UsageError` for ``native`` on a processor that is not known, and for an
    instruction set that cannot be added to one."""
    cpu, *added = text.split("+")
    if cpu != NATIVE and cpu not in CPUS:
        return None
    threads = _threads(cpu, [part for part in added if part.startswith(_THREADS)])
    added = [part for part in added if not part.startswith(_THREADS)]
    if cpu == NATIVE and not added:
        return replace(native(), text=text, threads=threads)
    if cpu == NATIVE:
        raise UsageError(f"the target 'native' takes no '+{added[0]}'", help="it has all that this machine has")
    parts = CPUS[cpu].architecture.parts
    if unknown := [part for part in added if part not in parts]:
        raise UsageError(
            f"the target '{cpu}' takes no '+{unknown[0]}'",
            help="what can be added: " + ", ".join(f"+{part}" for part in (*parts, f"{_THREADS}16")),
        )
    return replace(_target(text, cpu, [parts[part] for part in added]), threads=threads)


def _threads(cpu: str, parts: list[str]) -> int:
    """The threads of the parts ``threads=N`` of a target's text, 0 where it has none; `UsageError` for nonsense."""
    counts = [part.removeprefix(_THREADS) for part in parts]
    if len(counts) > 1 or not all(count.isdecimal() and 1 <= int(count) <= MOST_THREADS for count in counts):
        raise UsageError(
            f"the target '{cpu}' takes no '+{parts[-1]}'",
            why=f"threads are one number from 1 to {MOST_THREADS}",
            help=f"write {cpu}+{_THREADS}16",
        )
    return int(counts[0]) if counts else 0


def native() -> Target:
    """Detect the target of this machine, or of the lesser processor as which it is to behave."""
    cpu = stand_in() or _native_cpu(host_features(), cpuinfo())
    if not cpu:
        known = host_architecture()
        lacking = f" without the instruction sets of {known.levels[-1]}" if known else ""
        raise UsageError(
            "this machine's processor is not supported as a target",
            why=f"it is {platform.machine() or 'unknown'}{lacking}",
            help="name a target: " + ", ".join(CPUS),
        )
    return _target(NATIVE, cpu, host_features() & {*CPUS[cpu].architecture.parts.values()})


def spelling(target: Target) -> str:
    """The text that names a target on any machine: its processor, and what it has beyond it."""
    processor = processor_of(target)
    added = target.features - processor.features
    return target.cpu + "".join(f"+{text}" for text, name in processor.architecture.parts.items() if name in added)


def timed_processor(target: Target, machine: str = "") -> str:
    """What times of code for a target are known by: its processor, and where it stands for any of a level, the name
    that the machine's own processor has too, by default this one's."""
    is_level = target.cpu in processor_of(target).architecture.levels
    return f"{spelling(target)} on {machine or processor_name()}" if is_level else spelling(target)


def _target(text: str, cpu: str, added: Iterable[str]) -> Target:
    return Target(text, "tvm", CPUS[cpu].kind, cpu, CPUS[cpu].features.union(added))


def _native_cpu(features: frozenset[str], info: Info) -> str:
    """LLVM's name of this machine's processor: its own if certain, else its level; empty below the lowest."""
    known = host_architecture()
    if known is None:
        return ""
    named = known.name_of(info)
    names = [name for name in (named, *known.levels) if name and CPUS[name].features <= features]
    return names[0] if names else ""


def that_multiply(element: str) -> list[str]:
    """The targets with an instruction that multiplies and adds elements of a type."""
    return [name for name, cpu in CPUS.items() if element in cpu.architecture.widest(cpu.features).dots]


def vector_of(target: Target, *, halves: bool = False) -> Vector:
    """The vector unit of a target, as models use it that compute in half precision, or as others do."""
    architecture = processor_of(target).architecture
    choose = architecture.for_halves if halves else architecture.widest
    return Vector(choose(target.features), machine_of(target))


def processor_of(target: Target) -> Processor:
    """What is known of a target's processor; `CompileError` for a name that only a damaged artefact can have."""
    if target.cpu not in CPUS:
        raise CompileError(f"no processor is called '{target.cpu}'", help="it may be " + ", ".join(CPUS))
    return CPUS[target.cpu]


def machine_of(target: Target) -> Machine:
    """What cost models know of a target's processor: this machine's own caches for ``native``, else what is fixed for
    its name, so that code for a named processor is the same wherever it is made."""
    known = processor_of(target).machine
    machine = host_machine(known) if target.text.split("+")[0] == NATIVE else known
    return replace(machine, threads=target.threads) if target.threads else machine


def llvm_options(target: Target) -> dict[str, object]:
    """TVM's description of a target. What schedules make vectors has their width anyway; attributes of the instruction
    set let loops that LLVM makes vectors of by itself have the same. At the level above this one LLVM unrolls what
    schedules have unrolled already: code gets larger by a fifth, and no faster.
    """
    processor = processor_of(target)
    architecture = processor.architecture
    options: dict[str, object] = {"kind": "llvm", "mtriple": architecture.triple, "mcpu": processor.llvm or target.cpu}
    options |= {"opt-level": 2, **architecture.options}
    added = [f"+{feature}" for feature in sorted(target.features - processor.features)]
    if attributes := [*architecture.widest(target.features).attributes, *added]:
        options["mattr"] = attributes
    return options

"""The instruction sets and the caches of this machine. Imports nothing heavy: loading a model needs it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.processor import Architecture
from lvc.backends.tvm.cpu.processors import CPUS, KNOWN
from lvc.compiler.backend import OtherMachine
from lvc.compiler.errors import UsageError, did_you_mean

STAND_IN = "LVC_NATIVE"
"""The environment variable that names a lesser processor, as which this machine is to behave; or one of another
architecture, whose code is emulated."""


def host_features() -> frozenset[str]:
    """The instruction sets of this machine that targets speak of, by LLVM's names; empty where unknown."""
    cpu = stand_in()
    return CPUS[cpu].features if cpu else _detected_features()


def stand_in() -> str:
    """The processor that `STAND_IN` names, empty if none; `UsageError` for one whose code could not run here."""
    cpu = os.environ.get(STAND_IN, "")
    if not cpu:
        return ""
    if cpu not in CPUS:
        help = f"{did_you_mean(cpu, list(CPUS))}it may be {', '.join(CPUS)}, or unset"
        raise UsageError(f"the environment variable {STAND_IN} names no processor: '{cpu}'", help=help)
    is_own = CPUS[cpu].architecture is machine_architecture()
    if is_own and (missing := sorted(CPUS[cpu].features - _detected_features())):
        raise UsageError(
            f"the environment variable {STAND_IN} names {cpu}, and this machine cannot run its code",
            why="the processor lacks " + ", ".join(missing),
            help=f"it names a processor that can less than this one{_lowest('such as')}",
        )
    return cpu


def host_architecture() -> Architecture | None:
    """The architecture of this machine, or of that as which it is to behave; None of one for which there are no
    processors here."""
    cpu = stand_in()
    return CPUS[cpu].architecture if cpu else machine_architecture()


def is_emulated(kind: str) -> bool:
    """Whether this machine is to behave as one of an architecture of a kind, and is of another."""
    cpu, own = stand_in(), machine_architecture()
    return bool(cpu) and CPUS[cpu].kind == kind and CPUS[cpu].architecture is not own


def machine_architecture() -> Architecture | None:
    """The architecture of this machine as it is."""
    machine = platform.machine()
    return next((cpu.architecture for cpu in CPUS.values() if machine in cpu.architecture.machines), None)


def _lowest(words: str) -> str:
    """The least processor of this machine's architecture, as the end of a sentence; nothing where it is not known."""
    known = machine_architecture()
    return f", {words} {known.levels[-1]}" if known else ""


@cache
def _detected_features() -> frozenset[str]:
    known = machine_architecture()
    return known.features_of(cpuinfo()) & KNOWN if known else frozenset()


def runs_here(features: frozenset[str], kind: str) -> bool:
    """Whether code of a kind, with these instruction sets, runs on this machine."""
    known = host_architecture()
    return known is not None and kind == known.kind and features <= host_features()


def check_host(target_text: str, features: frozenset[str], kind: str = "") -> None:
    """Raise `OtherMachine` if code of a kind, with these instruction sets, cannot run on this machine."""
    known = host_architecture()
    is_other = bool(kind) and (known is None or kind != known.kind)
    missing = sorted(features - host_features())
    if is_other or missing:
        lacking = "the processor lacks " + ", ".join(missing)
        emulated = "run it with --emulate, or " if is_other else ""
        raise OtherMachine(
            f"this artefact was built for {target_text}, and this machine cannot run it",
            why=f"it is code for {kind}, and the processor is {platform.machine()}" if is_other else lacking,
            help=f"{emulated}build it again with --target native on this machine{_lowest('or with --target')}",
        )


def processor_name() -> str:
    """What the processor calls itself."""
    return cpuinfo().get("model name", "an unknown processor")


@cache
def cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    if not sys.platform.startswith("linux"):
        return {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def host_machine(known: Machine) -> Machine:
    """A description with the caches that the operating system reports for this machine's first processor.

    One that it does not report, or not sensibly, stays as it is ``known``; all do where this machine is to behave as
    another.
    """
    if stand_in():
        return known
    first, second, third = map(_detected_cache, (1, 2, 3))
    return replace(known, first=first or known.first, second=second or known.second, third=third or known.third)


_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_SIZES = {1: (8 << 10, 256 << 10), 2: (128 << 10, 16 << 20), 3: (1 << 20, 64 << 20)}  # that a report is believed for
_MOST_WAYS = 32


def _detected_cache(level: int) -> Cache | None:
    """The cache of data at a level; None where nothing that can be right is known of it."""
    found = [cache for folder in sorted(_CACHES.glob("index*")) if (cache := _read_cache(folder, level))]
    return found[0] if found else None


def _read_cache(folder: Path, level: int) -> Cache | None:
    """The cache that a folder of the operating system describes, if it is of that level and not of instructions."""
    try:
        found, kind, size, ways = (
            (folder / name).read_text().strip() for name in ("level", "type", "size", "ways_of_associativity")
        )
        cache = Cache(int(size.removesuffix("K")) << 10, int(ways))
    except (OSError, ValueError):
        return None
    least, most = _SIZES[level]
    is_wanted = found == str(level) and kind in ("Data", "Unified")
    is_sensible = least <= cache.size <= most and 2 <= cache.ways <= _MOST_WAYS
    return cache if is_wanted and is_sensible else None

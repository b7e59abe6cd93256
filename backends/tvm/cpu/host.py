"""The instruction sets and the caches of this machine. Imports nothing heavy: loading a model needs it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.processors import CPUS, KNOWN
from lvc.compiler.errors import CompileError, UsageError, did_you_mean

# names in /proc/cpuinfo that differ from LLVM's
_LINUX_NAMES = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "avx_vnni": "avxvnni",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
}


STAND_IN = "LVC_NATIVE"
"""The environment variable that names a lesser processor, as which this machine is to behave."""


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
    if missing := sorted(CPUS[cpu].features - _detected_features()):
        raise UsageError(
            f"the environment variable {STAND_IN} names {cpu}, and this machine cannot run its code",
            why="the processor lacks " + ", ".join(missing),
            help="it names a processor that can less than this one, such as x86-64-v2",
        )
    return cpu


@cache
def _detected_features() -> frozenset[str]:
    flags = cpuinfo().get("flags", "").split()
    return frozenset(_LINUX_NAMES.get(flag, flag) for flag in flags) & KNOWN


def check_host(target_text: str, features: frozenset[str]) -> None:
    """Raise `CompileError` if code with these instruction sets cannot run on this machine."""
    if missing := sorted(features - host_features()):
        raise CompileError(
            f"this artefact was built for {target_text}, and this machine cannot run it",
            why="the processor lacks " + ", ".join(missing),
            help="build it again with --target native on this machine, or with --target x86-64-v2",
        )


@cache
def cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
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

"""The instruction sets of processors, and those of this machine. Imports nothing heavy: loading a model needs it."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

from lvc.compiler.errors import CompileError, UsageError, did_you_mean

_V2 = frozenset({"sse3", "ssse3", "sse4.1", "sse4.2", "popcnt"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_ICELAKE = _V4 | {
    "avx512vnni",
    "avx512ifma",
    "avx512vbmi",
    "avx512vbmi2",
    "avx512bitalg",
    "avx512vpopcntdq",
    "gfni",
    "vaes",
    "vpclmulqdq",
}

# LLVM's name of a processor, one line about it, and the instruction sets that generated code may use
CPUS: dict[str, tuple[str, frozenset[str]]] = {
    "x86-64-v2": ("any x86-64 with SSE4.2 (2009 and later)", _V2),
    "x86-64-v3": ("any x86-64 with AVX2 and FMA (2013 and later)", _V3),
    "x86-64-v4": ("any x86-64 with AVX-512 (F, BW, CD, DQ, VL)", _V4),
    "haswell": ("Intel Core, 4th generation", _V3),
    "skylake-avx512": ("Intel Xeon Scalable, 1st generation", _V4),
    "cascadelake": ("Intel Xeon Scalable, 2nd generation", _V4 | {"avx512vnni"}),
    "cooperlake": ("Intel Xeon Scalable, 3rd generation with bfloat16", _V4 | {"avx512vnni", "avx512bf16"}),
    "icelake-server": ("Intel Xeon Scalable, 3rd generation", _ICELAKE),
    "sapphirerapids": ("Intel Xeon Scalable, 4th generation", _ICELAKE | {"avx512bf16", "avxvnni"}),
    "graniterapids": ("Intel Xeon 6 (P-cores)", _ICELAKE | {"avx512bf16", "avxvnni"}),
    "znver2": ("AMD Zen 2", _V3),
    "znver3": ("AMD Zen 3", _V3 | {"vaes", "vpclmulqdq"}),
    "znver4": ("AMD Zen 4", _ICELAKE | {"avx512bf16"}),
    "znver5": ("AMD Zen 5", _ICELAKE | {"avx512bf16", "avxvnni"}),
}

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
KNOWN = frozenset().union(*(features for _, features in CPUS.values()))


STAND_IN = "LVC_NATIVE"
"""The environment variable that names a lesser processor, as which this machine is to behave."""


def host_features() -> frozenset[str]:
    """The instruction sets of this machine that targets speak of, by LLVM's names; empty where unknown."""
    cpu = stand_in()
    return CPUS[cpu][1] if cpu else _detected_features()


def stand_in() -> str:
    """The processor that `STAND_IN` names, empty if none; `UsageError` for one whose code could not run here."""
    cpu = os.environ.get(STAND_IN, "")
    if not cpu:
        return ""
    if cpu not in CPUS:
        help = f"{did_you_mean(cpu, list(CPUS))}it may be {', '.join(CPUS)}, or unset"
        raise UsageError(f"the environment variable {STAND_IN} names no processor: '{cpu}'", help=help)
    if missing := sorted(CPUS[cpu][1] - _detected_features()):
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

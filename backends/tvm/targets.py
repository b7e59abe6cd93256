"""x86-64 targets: their texts, the instruction sets behind each, and what this machine has.

``native`` is detected, never guessed: the instruction sets are those that the operating system reports, and a CPU name
is used only when vendor, family, model and all its instruction sets agree; otherwise the widest level of the x86-64
psABI whose instruction sets are all there.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path

from lvc.backends.tvm.vector import Vector
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError

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
    "icelake-server": ("Intel Xeon Scalable, 3rd generation", _ICELAKE),
    "sapphirerapids": ("Intel Xeon Scalable, 4th generation", _ICELAKE | {"avx512bf16", "avxvnni"}),
    "znver2": ("AMD Zen 2", _V3),
    "znver3": ("AMD Zen 3", _V3 | {"vaes", "vpclmulqdq"}),
    "znver4": ("AMD Zen 4", _ICELAKE | {"avx512bf16"}),
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
_KNOWN = frozenset().union(*(features for _, features in CPUS.values()))


def target_texts() -> dict[str, str]:
    """Every target text that this backend takes, with one line about it."""
    return {"native": "the processor of this machine"} | {name: line for name, (line, _) in CPUS.items()}


def parse_target(text: str) -> Target | None:
    """Return the target of a text, or None; `UsageError` for ``native`` on a processor that is not x86-64."""
    if text == "native":
        return native()
    if text not in CPUS:
        return None
    return Target(text, "tvm", "x86-64", text, CPUS[text][1])


@cache
def native() -> Target:
    """Detect the target of this machine."""
    cpu = _native_cpu(host_features(), _cpuinfo())
    if not cpu:
        raise UsageError(
            "this machine's processor is not supported as a target",
            why=f"it is {platform.machine() or 'unknown'} without the instruction sets of x86-64-v2",
            help="name a target: " + ", ".join(CPUS),
        )
    return Target("native", "tvm", "x86-64", cpu, CPUS[cpu][1])


@cache
def host_features() -> frozenset[str]:
    """The instruction sets of this machine that targets speak of, by LLVM's names; empty where unknown."""
    flags = _cpuinfo().get("flags", "").split()
    return frozenset(_LINUX_NAMES.get(flag, flag) for flag in flags) & _KNOWN


def check_host(target_text: str, features: frozenset[str]) -> None:
    """Raise `CompileError` if code with these instruction sets cannot run on this machine."""
    if missing := sorted(features - host_features()):
        raise CompileError(
            f"this artefact was built for {target_text}, and this machine cannot run it",
            why="the processor lacks " + ", ".join(missing),
            help="build it again with --target native on this machine, or with --target x86-64-v2",
        )


def vector_of(target: Target) -> Vector:
    """The vector unit of a target."""
    if "avx512f" in target.features:
        return Vector(16, 32)
    return Vector(8, 16) if "avx2" in target.features else Vector(4, 16)


def llvm_options(target: Target) -> dict[str, object]:
    """TVM's description of a target. Wide vectors are asked for by schedules, so LLVM must not halve them."""
    options: dict[str, object] = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": target.cpu}
    if "avx512f" in target.features:
        options["mattr"] = ["-prefer-256-bit"]
    return options


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _native_cpu(features: frozenset[str], info: dict[str, str]) -> str:
    """LLVM's name of a processor: its own if certain, else its psABI level; empty below x86-64-v2."""
    named = _named_cpu(info)
    if named and CPUS[named][1] <= features:
        return named
    levels = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
    return next((level for level in levels if CPUS[level][1] <= features), "")


def _named_cpu(info: dict[str, str]) -> str:
    """Name a processor by vendor, family and model, after LLVM's own table (llvm/lib/TargetParser/Host.cpp)."""
    try:
        family, model = int(info["cpu family"]), int(info["model"])
    except (KeyError, ValueError):
        return ""
    if info.get("vendor_id") == "AuthenticAMD" and family == 0x19:
        if model <= 0x0F or 0x20 <= model <= 0x5F:
            return "znver3"
        return "znver4" if 0x10 <= model <= 0x1F or 0x60 <= model <= 0xAF else ""
    if info.get("vendor_id") == "AuthenticAMD" and family == 0x17:
        return "znver2" if 0x30 <= model <= 0x3F or model in (0x47, 0x60, 0x68, 0x71, 0x90, 0x98, 0xA0) else ""
    if info.get("vendor_id") == "GenuineIntel" and family == 6:
        names = {0x6A: "icelake-server", 0x6C: "icelake-server", 0x8F: "sapphirerapids"}
        if model == 0x55:
            return "cascadelake" if "avx512_vnni" in info.get("flags", "").split() else "skylake-avx512"
        return names.get(model, "")
    return ""

"""x86-64 targets: their texts, the instruction sets behind each, and what this machine has.

``native`` is detected, never guessed: the instruction sets are those that the operating system reports, and a CPU name
is used only when vendor, family, model and all its instruction sets agree; otherwise the widest level of the x86-64
psABI whose instruction sets are all there. ``LVC_NATIVE=x86-64-v3`` makes a machine behave as one that has only AVX2.
"""

from __future__ import annotations

import platform

from lvc.backends.tvm.cpu.host import cpuinfo, host_features, host_machine, stand_in
from lvc.backends.tvm.cpu.isa.choice import widest
from lvc.backends.tvm.cpu.machine import Machine
from lvc.backends.tvm.cpu.processors import CPUS, Processor
from lvc.backends.tvm.cpu.vector import Vector
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError, UsageError


def target_texts() -> dict[str, str]:
    """Every target text that this backend takes, with one line about it."""
    return {"native": "the processor of this machine"} | {name: cpu.line for name, cpu in CPUS.items()}


def parse_target(text: str) -> Target | None:
    """Return the target of a text, or None; `UsageError` for ``native`` on a processor that is not x86-64."""
    if text == "native":
        return native()
    if text not in CPUS:
        return None
    return _target(text, text)


def native() -> Target:
    """Detect the target of this machine, or of the lesser processor as which it is to behave."""
    cpu = stand_in() or _native_cpu(host_features(), cpuinfo())
    if not cpu:
        raise UsageError(
            "this machine's processor is not supported as a target",
            why=f"it is {platform.machine() or 'unknown'} without the instruction sets of x86-64-v2",
            help="name a target: " + ", ".join(CPUS),
        )
    return _target("native", cpu)


def _target(text: str, cpu: str) -> Target:
    return Target(text, "tvm", CPUS[cpu].kind, cpu, CPUS[cpu].features)


def that_multiply(element: str) -> list[str]:
    """The targets with an instruction that multiplies and adds elements of a type."""
    return [name for name, cpu in CPUS.items() if element in widest(cpu.features).dots]


def vector_of(target: Target) -> Vector:
    """The vector unit of a target."""
    return Vector(widest(target.features), machine_of(target))


def processor_of(target: Target) -> Processor:
    """What is known of a target's processor; `CompileError` for a name that only a damaged artefact can have."""
    if target.cpu not in CPUS:
        raise CompileError(f"no processor is called '{target.cpu}'", help="it may be " + ", ".join(CPUS))
    return CPUS[target.cpu]


def machine_of(target: Target) -> Machine:
    """What cost models know of a target's processor: this machine's own caches for ``native``, else what is fixed for
    its name, so that code for a named processor is the same wherever it is made."""
    known = processor_of(target).machine
    return host_machine(known) if target.text == "native" else known


def llvm_options(target: Target) -> dict[str, object]:
    """TVM's description of a target. What schedules make vectors has their width anyway; attributes of the instruction
    set let loops that LLVM makes vectors of by itself have the same."""
    options: dict[str, object] = {"kind": "llvm", "mtriple": processor_of(target).triple, "mcpu": target.cpu}
    if attributes := widest(target.features).attributes:
        options["mattr"] = list(attributes)
    return options


def _native_cpu(features: frozenset[str], info: dict[str, str]) -> str:
    """LLVM's name of a processor: its own if certain, else its psABI level; empty below x86-64-v2."""
    named = _named_cpu(info)
    if named and CPUS[named].features <= features:
        return named
    levels = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
    return next((level for level in levels if CPUS[level].features <= features), "")


# by model of family 6; 0xCF, Emerald Rapids, has what Sapphire Rapids has
_XEONS = {
    0x6A: "icelake-server",
    0x6C: "icelake-server",
    0x8F: "sapphirerapids",
    0xCF: "sapphirerapids",
    0xAD: "graniterapids",
    0xAE: "graniterapids",
}


def _first_xeon(flags: list[str]) -> str:
    """Three generations of Xeon Scalable have one model number."""
    if "avx512_bf16" in flags:
        return "cooperlake"
    return "cascadelake" if "avx512_vnni" in flags else "skylake-avx512"


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
    if info.get("vendor_id") == "AuthenticAMD" and family == 0x1A:
        return "znver5" if model <= 0x4F or 0x60 <= model <= 0x77 else ""
    if info.get("vendor_id") == "AuthenticAMD" and family == 0x17:
        return "znver2" if 0x30 <= model <= 0x3F or model in (0x47, 0x60, 0x68, 0x71, 0x90, 0x98, 0xA0) else ""
    if info.get("vendor_id") == "GenuineIntel" and family == 6:
        return _XEONS.get(model, "") if model != 0x55 else _first_xeon(info.get("flags", "").split())
    return ""

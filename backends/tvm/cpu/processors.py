"""The processors that code can be made for. Imports nothing heavy: loading a model needs their instruction sets."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.backends.tvm.cpu.machine import GENERIC, Cache, Machine

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
_SAPPHIRE = _ICELAKE | {"avx512bf16", "avxvnni"}


@dataclass(frozen=True)
class Processor:
    """One line about a processor, the instruction sets that generated code may use, what cost models know of it, and
    what machine code for it is called: by targets, and by LLVM."""

    line: str
    features: frozenset[str]
    machine: Machine = GENERIC
    kind: str = "x86-64"
    triple: str = "x86_64-unknown-linux-gnu"


_MEGABYTE = Cache(1 << 20, 8)
_ZEN4 = Machine(second=_MEGABYTE, loads=1, multiply_adds=1)
_SKYLAKE = Machine(second=Cache(1 << 20, 16))
_WIDE_FIRST = Cache(48 << 10, 12)

CPUS: dict[str, Processor] = {
    "x86-64-v2": Processor("any x86-64 with SSE4.2 (2009 and later)", _V2),
    "x86-64-v3": Processor("any x86-64 with AVX2 and FMA (2013 and later)", _V3),
    "x86-64-v4": Processor("any x86-64 with AVX-512 (F, BW, CD, DQ, VL)", _V4, Machine(second=_MEGABYTE)),
    # its second level has 256 KB; told so, the rule takes one vector by 8 rows for deep products: half as fast on Zen 4
    "haswell": Processor("Intel Core, 4th generation", _V3),
    "skylake-avx512": Processor("Intel Xeon Scalable, 1st generation", _V4, _SKYLAKE),
    "cascadelake": Processor("Intel Xeon Scalable, 2nd generation", _V4 | {"avx512vnni"}, _SKYLAKE),
    "cooperlake": Processor(
        "Intel Xeon Scalable, 3rd generation with bfloat16", _V4 | {"avx512vnni", "avx512bf16"}, _SKYLAKE
    ),
    "icelake-server": Processor(
        "Intel Xeon Scalable, 3rd generation", _ICELAKE, Machine(_WIDE_FIRST, Cache(1280 << 10, 20))
    ),
    "sapphirerapids": Processor(
        "Intel Xeon Scalable, 4th generation", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(2 << 20, 16))
    ),
    "graniterapids": Processor("Intel Xeon 6 (P-cores)", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(2 << 20, 16))),
    "znver2": Processor("AMD Zen 2", _V3),
    "znver3": Processor("AMD Zen 3", _V3 | {"vaes", "vpclmulqdq"}),
    "znver4": Processor("AMD Zen 4", _ICELAKE | {"avx512bf16"}, _ZEN4),
    "znver5": Processor("AMD Zen 5", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(1 << 20, 16))),
}
"""By LLVM's name."""

KNOWN = frozenset().union(*(processor.features for processor in CPUS.values()))
"""Every instruction set that targets speak of."""

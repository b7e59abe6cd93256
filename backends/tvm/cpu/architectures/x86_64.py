"""Processors of x86-64, by LLVM's names."""

from __future__ import annotations

from functools import partial

from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.sse import Sse
from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.processor import Architecture, Info, Processor

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


# names in /proc/cpuinfo that differ from LLVM's
_NAMES = {
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


def _name_of(info: Info) -> str:
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


X86_64 = Architecture(
    kind="x86-64",
    triple="x86_64-unknown-linux-gnu",
    machines=("x86_64", "AMD64"),
    vectors=(Avx512, Avx2, Sse),
    levels=("x86-64-v4", "x86-64-v3", "x86-64-v2"),
    flags="flags",
    names=_NAMES,
    name_of=_name_of,
)

_processor = partial(Processor, architecture=X86_64)
_MEGABYTE = Cache(1 << 20, 8)
_ZEN4 = Machine(second=_MEGABYTE, loads=1, multiply_adds=1, stream_rate=9)
_SKYLAKE = Machine(second=Cache(1 << 20, 16))
_WIDE_FIRST = Cache(48 << 10, 12)

PROCESSORS: dict[str, Processor] = {
    "x86-64-v2": _processor("any x86-64 with SSE4.2 (2009 and later)", _V2),
    "x86-64-v3": _processor("any x86-64 with AVX2 and FMA (2013 and later)", _V3),
    "x86-64-v4": _processor("any x86-64 with AVX-512 (F, BW, CD, DQ, VL)", _V4, Machine(second=_MEGABYTE)),
    # its second level has 256 KB; told so, the rule takes one vector by 8 rows for deep products: half as fast on Zen 4
    "haswell": _processor("Intel Core, 4th generation", _V3),
    "skylake-avx512": _processor("Intel Xeon Scalable, 1st generation", _V4, _SKYLAKE),
    "cascadelake": _processor("Intel Xeon Scalable, 2nd generation", _V4 | {"avx512vnni"}, _SKYLAKE),
    "cooperlake": _processor(
        "Intel Xeon Scalable, 3rd generation with bfloat16", _V4 | {"avx512vnni", "avx512bf16"}, _SKYLAKE
    ),
    "icelake-server": _processor(
        "Intel Xeon Scalable, 3rd generation", _ICELAKE, Machine(_WIDE_FIRST, Cache(1280 << 10, 20))
    ),
    "sapphirerapids": _processor(
        "Intel Xeon Scalable, 4th generation", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(2 << 20, 16))
    ),
    "graniterapids": _processor("Intel Xeon 6 (P-cores)", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(2 << 20, 16))),
    "znver2": _processor("AMD Zen 2", _V3),
    "znver3": _processor("AMD Zen 3", _V3 | {"vaes", "vpclmulqdq"}),
    "znver4": _processor("AMD Zen 4", _ICELAKE | {"avx512bf16"}, _ZEN4),
    "znver5": _processor("AMD Zen 5", _SAPPHIRE, Machine(_WIDE_FIRST, Cache(1 << 20, 16), stream_rate=9)),
}

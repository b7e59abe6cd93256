"""Processors of 64-bit ARM, by LLVM's names."""

from __future__ import annotations

from functools import partial

from lvc.backends.tvm.cpu.isa.neon import Neon
from lvc.backends.tvm.cpu.isa.neon_halves import NeonHalves
from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.processor import Architecture, Info, Processor

_V8 = frozenset({"neon"})
_V8_2 = _V8 | {"dotprod", "fullfp16"}
_V8_6 = _V8_2 | {"i8mm", "bf16", "sve"}
_V9 = _V8_6 | {"sve2"}

# names in /proc/cpuinfo that differ from LLVM's
_NAMES = {"asimd": "neon", "asimddp": "dotprod", "asimdhp": "fullfp16"}

# by implementer and part, after LLVM's own table (llvm/lib/TargetParser/Host.cpp)
_CORES = {
    (0x41, 0xD03): "cortex-a53",
    (0x41, 0xD05): "cortex-a55",
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD44): "cortex-x1",
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD4F): "neoverse-v2",
    (0x61, 0x22): "apple-m1",
    (0x61, 0x23): "apple-m1",
}


def _name_of(info: Info) -> str:
    try:
        return _CORES.get((int(info["CPU implementer"], 16), int(info["CPU part"], 16)), "")
    except (KeyError, ValueError):
        return ""


AARCH64 = Architecture(
    kind="aarch64",
    triple="aarch64-unknown-linux-gnu",
    machines=("aarch64", "arm64"),
    vectors=(Neon,),
    halves=NeonHalves,
    levels=("aarch64",),
    flags="Features",
    names=_NAMES,
    name_of=_name_of,
    parts={"dotprod": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "fp16": "fullfp16"},
    assembly="\t.arch\tarmv8.2-a+dotprod+i8mm+bf16+fp16\n",
    emulator="qemu-aarch64",
    emulated={"cortex-a72": _V8, "cortex-a76": _V8_2, "max": _V9},
)

_processor = partial(Processor, architecture=AARCH64)
_IN_ORDER = Machine(
    Cache(32 << 10, 4), Cache(512 << 10, 16), Cache(1 << 20, 16), loads=1, multiply_adds=1, in_order=True
)
_OUT_OF_ORDER = Machine(Cache(64 << 10, 4), Cache(512 << 10, 8), Cache(2 << 20, 16))
_SERVER = Machine(Cache(64 << 10, 4), Cache(1 << 20, 8))
_wide = partial(Machine, loads=3, multiply_adds=4)

PROCESSORS: dict[str, Processor] = {
    "aarch64": _processor("any 64-bit ARM (2013 and later)", _V8, llvm="generic"),
    "cortex-a53": _processor("ARM Cortex-A53, in order (Raspberry Pi 3)", _V8, _IN_ORDER),
    "cortex-a55": _processor("ARM Cortex-A55, in order", _V8_2, _IN_ORDER),
    "cortex-a72": _processor(
        "ARM Cortex-A72 (Raspberry Pi 4)", _V8, Machine(Cache(32 << 10, 2), Cache(1 << 20, 16), Cache(1 << 20, 16))
    ),
    "cortex-a76": _processor("ARM Cortex-A76 (Raspberry Pi 5)", _V8_2, _OUT_OF_ORDER),
    "cortex-x1": _processor("ARM Cortex-X1", _V8_2, _wide(Cache(64 << 10, 4), Cache(1 << 20, 8))),
    "neoverse-n1": _processor("ARM Neoverse N1 (Graviton 2, Ampere Altra)", _V8_2, _SERVER),
    "neoverse-v1": _processor("ARM Neoverse V1 (Graviton 3)", _V8_6, _wide(Cache(64 << 10, 4), Cache(1 << 20, 8))),
    "neoverse-v2": _processor(
        "ARM Neoverse V2 (Graviton 4, Grace)",
        _V8_6,
        _wide(Cache(64 << 10, 4), Cache(2 << 20, 8)),
    ),
    "apple-m1": _processor("Apple M1", _V8_2, _wide(Cache(128 << 10, 8), Cache(12 << 20, 12))),
}

"""Processors of 32-bit ARM, by LLVM's names."""

from __future__ import annotations

from lvc.backends.tvm.cpu.isa.neon32 import Neon32
from lvc.backends.tvm.cpu.machine import Cache, Machine
from lvc.backends.tvm.cpu.processor import Architecture, Processor

_NEON = frozenset({"neon", "vfp4"})
_SMALL = Machine(Cache(32 << 10, 4), Cache(512 << 10, 8), Cache(1 << 20, 16), loads=1, multiply_adds=1, latency=8)

ARMV7 = Architecture(
    kind="armv7",
    triple="armv7a-unknown-linux-gnueabihf",
    machines=("armv7l", "armv8l"),
    vectors=(Neon32,),
    levels=("armv7",),
    flags="Features",
    names={"vfpv4": "vfp4"},
    name_of=lambda _: "",
    options={"mfloat-abi": "hard"},
    emulator="qemu-arm",
    emulated={"cortex-a15": _NEON},
)

PROCESSORS: dict[str, Processor] = {
    "armv7": Processor(
        "32-bit ARM with NEON and VFPv4 (Cortex-A7, A15, A17)", _NEON, _SMALL, architecture=ARMV7, llvm="cortex-a15"
    ),
}

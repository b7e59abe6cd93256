"""Processors of 64-bit ARM under other systems than Linux: code that is emitted here and linked there."""

from __future__ import annotations

from dataclasses import replace

from lvc.backends.tvm.cpu.architectures import aarch64
from lvc.backends.tvm.cpu.processor import Architecture, Processor

_ELSEWHERE = replace(aarch64.AARCH64, machines=(), emulator="", emulated={})

ANDROID = replace(_ELSEWHERE, kind="aarch64-android", triple="aarch64-unknown-linux-android21", system="Android")
MACOS = replace(
    _ELSEWHERE, kind="aarch64-macos", triple="arm64-apple-macosx11.0.0", system="macOS", mangled="_", assembly=""
)


def _under(architecture: Architecture, *names: str) -> dict[str, Processor]:
    """Processors under a system, named after it."""
    suffix = architecture.system.lower()
    return {
        f"{name}-{suffix}": replace(
            known,
            line=f"{known.line}; {architecture.system}: emits objects, static libraries and C packages",
            architecture=architecture,
            llvm=known.llvm or name,
        )
        for name, known in ((name, aarch64.PROCESSORS[name]) for name in names)
    }


PROCESSORS: dict[str, Processor] = {
    **_under(ANDROID, "aarch64", "cortex-a53", "cortex-a55", "cortex-a76", "cortex-x1"),
    **_under(MACOS, "apple-m1"),
}

"""The processors that code can be made for, of all architectures."""

from __future__ import annotations

from lvc.backends.tvm.cpu.architectures import aarch64, aarch64_systems, armv7, x86_64
from lvc.backends.tvm.cpu.processor import Architecture, Processor

CPUS: dict[str, Processor] = {
    **x86_64.PROCESSORS,
    **aarch64.PROCESSORS,
    **armv7.PROCESSORS,
    **aarch64_systems.PROCESSORS,
}
"""By LLVM's name."""

USUAL = x86_64.X86_64
"""The architecture of code of which nothing is said but its vector unit."""

KNOWN = frozenset().union(
    *(processor.features | {*processor.architecture.parts.values()} for processor in CPUS.values())
)
"""Every instruction set that targets speak of."""


def architecture_of(kind: str) -> Architecture | None:
    """The architecture that targets and plans call so; None if there is none."""
    return next((processor.architecture for processor in CPUS.values() if processor.kind == kind), None)

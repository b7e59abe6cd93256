"""What is known of GPUs: limits by compute capability, and the chips that targets name. Imports nothing heavy.

Sources: the tables of technical specifications in NVIDIA's CUDA C++ Programming Guide (multiprocessors, shared memory,
registers, threads), the PTX ISA (shapes of ``mma.sync``), NVIDIA's data sheets (multiprocessors, clocks, bandwidth, and
the dense rates of tensor cores, of which GeForce chips have half when halves are summed in float32). That ``dp4a``
runs where integers of 32 bits are multiplied is from NVIDIA's forum (post 7 of "Separate CUDA core pipeline for FP16
and FP32"), and that those are 64 a cycle from the table of arithmetic throughput in the CUDA C++ Best Practices Guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, int, int]  # m, n, k of a product of matrices that one warp makes
INTEGER_LANES = 64  # integers of 32 bits, or words by dp4a, that any multiprocessor multiplies in a cycle


@dataclass(frozen=True)
class Capability:
    """A compute capability: what each multiprocessor has, and what a block of threads may take of it.

    ``shared`` bytes are those of a multiprocessor, ``block_shared`` those that one block may ask for. ``lanes`` are
    the float32 multiply-adds that begin in a cycle. ``products`` are the largest shapes of ``mma.sync`` by the type
    of the factors.
    """

    number: int
    shared: int
    block_shared: int
    threads: int
    blocks: int
    lanes: int
    products: Mapping[str, Shape] = field(hash=False)
    registers: int = 64 << 10

    @property
    def architecture(self) -> str:
        """What compilers call it."""
        return f"sm_{self.number}"

    @property
    def copies_ahead(self) -> bool:
        """Whether copies from global to shared memory are under way while threads go on (``cp.async``)."""
        return self.number >= 80

    def multiplies(self, element: str) -> bool:
        """Whether kernels have its tensor cores multiply elements of a type: those that have products of 16 rows."""
        return self.products.get(element, (0, 0, 0))[0] == 16


_VOLTA: dict[str, Shape] = {"float16": (8, 8, 4)}
_TURING: dict[str, Shape] = {"float16": (16, 8, 8), "int8": (8, 8, 16)}
_AMPERE: dict[str, Shape] = {
    "float16": (16, 8, 16),
    "bfloat16": (16, 8, 16),
    "tf32": (16, 8, 8),
    "int8": (16, 8, 32),
}

CAPABILITIES = {
    capability.number: capability
    for capability in (
        Capability(70, 96 << 10, 96 << 10, 2048, 32, 64, _VOLTA),
        Capability(75, 64 << 10, 64 << 10, 1024, 16, 64, _TURING),
        Capability(80, 164 << 10, 163 << 10, 2048, 32, 64, _AMPERE),
        Capability(86, 100 << 10, 99 << 10, 1536, 16, 128, _AMPERE),
        Capability(87, 164 << 10, 163 << 10, 1536, 16, 128, _AMPERE),
        Capability(89, 100 << 10, 99 << 10, 1536, 24, 128, _AMPERE),
        Capability(90, 228 << 10, 227 << 10, 2048, 32, 128, _AMPERE),
        Capability(100, 228 << 10, 227 << 10, 2048, 32, 128, _AMPERE),
        Capability(120, 100 << 10, 99 << 10, 1536, 24, 128, _AMPERE),
    )
}


@dataclass(frozen=True)
class Gpu:
    """A chip: its multiprocessors, the highest clock in GHz, the bandwidth of its memory in GB/s, and the multiply-adds
    of a multiprocessor's tensor cores in a cycle: of float16 summed in float32, which is that of bfloat16 and twice
    that of TF32 where there are such, and of bytes.

    ``host`` is the kind of processor beside it where the two are one chip; others are driven by any.
    """

    line: str
    capability: Capability
    multiprocessors: int
    clock: float
    bandwidth: float
    half_products: int
    byte_products: int
    host: str = ""

    @property
    def bytes_per_cycle(self) -> float:
        """What memory gives in a cycle."""
        return self.bandwidth / self.clock

    def cycles(self, seconds: float) -> float:
        """How many go by in so many seconds."""
        return seconds * self.clock * 1e9

    @property
    def peak(self) -> float:
        """Float32 operations in a second, a multiply-add being two."""
        return 2e9 * self.clock * self.multiprocessors * self.capability.lanes


CHIPS = {
    "v100": Gpu("NVIDIA V100 (SXM2)", CAPABILITIES[70], 80, 1.53, 900, 512, 0),
    "t4": Gpu("NVIDIA T4", CAPABILITIES[75], 40, 1.59, 320, 512, 1024),
    "a100": Gpu("NVIDIA A100 (40 GB, SXM4)", CAPABILITIES[80], 108, 1.41, 1555, 1024, 2048),
    "rtx3090": Gpu("NVIDIA GeForce RTX 3090", CAPABILITIES[86], 82, 1.695, 936, 256, 1024),
    "orin": Gpu("NVIDIA Jetson AGX Orin (64 GB)", CAPABILITIES[87], 16, 1.3, 204.8, 1024, 2048, "aarch64"),
    "l4": Gpu("NVIDIA L4", CAPABILITIES[89], 58, 2.04, 300, 512, 1024),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", CAPABILITIES[89], 128, 2.52, 1008, 256, 1024),
    "h100": Gpu("NVIDIA H100 (SXM5)", CAPABILITIES[90], 132, 1.98, 3350, 2048, 4096),
    "h200": Gpu("NVIDIA H200 (SXM5)", CAPABILITIES[90], 132, 1.98, 4800, 2048, 4096),
    "b200": Gpu("NVIDIA B200", CAPABILITIES[100], 148, 1.965, 8000, 4096, 8192),
    "rtx5090": Gpu("NVIDIA GeForce RTX 5090", CAPABILITIES[120], 170, 2.407, 1792, 256, 1024),
}
"""The chips that targets name, the one that stands for its capability before others of it."""

USUAL = 75
"""The capability of code for any GPU: the oldest that NVRTC 13 compiles for."""


def _standing_for(capability: Capability) -> Gpu:
    return next(chip for chip in CHIPS.values() if chip.capability is capability)


GPUS: dict[str, Gpu] = {
    capability.architecture: _standing_for(capability) for capability in CAPABILITIES.values()
} | CHIPS
"""All by the names that targets have for them."""

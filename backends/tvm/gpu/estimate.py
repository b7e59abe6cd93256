"""Estimates of kernels for a GPU that is not at hand: what they take of a multiprocessor, bytes, multiply-adds, time.

Nothing here was measured. docs/gpu.md says what the model counts and what it leaves out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.gpu.compiled import CompiledKernel, PlannedLaunch
from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.gpus import INTEGER_LANES, Capability, Gpu
from lvc.backends.tvm.gpu.kernels.attention_block import Attention
from lvc.backends.tvm.gpu.kernels.depthwise import Depthwise
from lvc.backends.tvm.gpu.kernels.factors import WORD, Bytes
from lvc.backends.tvm.gpu.kernels.matrix_factors import MatrixBytes, Tf32
from lvc.backends.tvm.gpu.kernels.tile import BUSY_WARPS, LATENCY, LAUNCH, Tile
from lvc.backends.tvm.gpu.launch import VECTOR_BYTES, WARP
from lvc.backends.tvm.gpu.nvrtc import Usage
from lvc.backends.tvm.program import ITEM_BYTES, Step
from lvc.compiler.ir.marks import TF32
from lvc.compiler.measure.kernels import KernelAccount, KernelsAccount, LaunchAccount

WARP_REGISTERS = 256  # a warp gets a multiple of so many
PARTITIONS = 4  # of a multiprocessor; each has its part of the registers, and a warp is in one of them
FIRST_LEVEL_BYTES = 128  # that loads get in a cycle from a multiprocessor's first-level cache
ITEM = ITEM_BYTES["float32"]
BYTE_TYPES = ("int8", "uint8")


@dataclass(frozen=True)
class Occupancy:
    """The blocks and warps that a multiprocessor holds at once, its most warps, and what there is too little of for
    more."""

    blocks: int
    warps: int
    most_warps: int
    limit: str

    @property
    def share(self) -> float:
        """Warps of the most there could be."""
        return self.warps / self.most_warps


def occupancy(of: Capability, threads: int, usage: Usage) -> Occupancy:
    """That of blocks of so many threads, by the rules of NVIDIA's ``cuda_occupancy.h`` (CUDA toolkit 13), with as much
    of the cache for shared memory as there can be."""
    warps = -(-threads // WARP)
    of_warp = _whole(max(1, usage.registers) * WARP, WARP_REGISTERS)
    with_registers = of.registers // PARTITIONS // of_warp * PARTITIONS
    reserved = of.shared - of.block_shared  # 1 KiB of each block is the driver's, from capability 8.0 on
    shared = _whole(usage.shared + reserved, 128 if reserved else 256)
    limits = {
        "blocks": of.blocks,
        "threads": of.threads // WARP // warps,
        "registers": with_registers // warps,
        "shared memory": of.shared // shared if shared else of.blocks,
    }
    limit = min(limits, key=lambda name: limits[name])
    return Occupancy(limits[limit], limits[limit] * warps, of.threads // WARP, limit)


@dataclass(frozen=True)
class LaunchEstimate:
    """A launch, what the compiler said of it, its occupancy, and the seconds of its work."""

    launch: PlannedLaunch
    usage: Usage
    occupancy: Occupancy
    seconds: float

    def account(self) -> LaunchAccount:
        """What an artefact says of it."""
        launch, usage, held = self.launch, self.usage, self.occupancy
        return LaunchAccount(
            blocks=launch.blocks,
            threads=launch.threads,
            registers=usage.registers,
            shared=usage.shared,
            spills=usage.spill_stores + usage.spill_loads,
            resident=held.blocks,
            warps=held.warps,
            most_warps=held.most_warps,
            limit=held.limit,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class KernelEstimate:
    """The kernel of a step, which is one launch or several. ``bytes`` are those of its arguments, each once and whole;
    ``roofline`` are the seconds that the GPU's arithmetic or its memory needs, whichever needs more.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str
    macs: int
    bytes: int
    roofline: float
    is_bound_by_memory: bool
    launches: tuple[LaunchEstimate, ...]

    @property
    def seconds(self) -> float:
        """Of its launches, one after the other, without what it takes to launch them."""
        return sum(launch.seconds for launch in self.launches)

    @property
    def share(self) -> float:
        """The part of the roofline that it comes to."""
        return self.roofline / self.seconds

    @property
    def bound(self) -> str:
        """What its roofline is made of."""
        return "memory" if self.is_bound_by_memory else "arithmetic"

    def account(self) -> KernelAccount:
        """What an artefact says of it."""
        launches = tuple(launch.account() for launch in self.launches)
        return KernelAccount(self.name, self.kind, self.macs, self.bytes, self.roofline, self.bound, launches)

    @property
    def spills(self) -> int:
        """Bytes that a thread stores to memory and loads again for want of registers."""
        return sum(launch.usage.spill_stores + launch.usage.spill_loads for launch in self.launches)


@dataclass(frozen=True)
class Estimate:
    """One run of a model, its kernels one after the other in their order."""

    gpu: Gpu
    kernels: tuple[KernelEstimate, ...]

    @property
    def launches(self) -> int:
        return sum(len(kernel.launches) for kernel in self.kernels)

    @property
    def roofline(self) -> float:
        """Seconds that no kernels of these steps could do without."""
        return sum(kernel.roofline for kernel in self.kernels)

    @property
    def launching(self) -> float:
        """Seconds that it takes to launch."""
        return self.launches * LAUNCH

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels) + self.launching

    def account(self) -> KernelsAccount:
        """What an artefact says of it."""
        return KernelsAccount(self.gpu.line, self.launching, tuple(kernel.account() for kernel in self.kernels))


def estimate(parts: Parts, macs: Mapping[str, int]) -> Estimate:
    """That of what was built; ``macs`` are the multiply-adds of the model's nodes by name, which the first step that
    has a node makes: a later one moves what it made."""
    left = dict(macs)
    names = parts.kernels[len(parts.program.setup) :]
    found = [
        kernel_estimate(step, parts.compiled[name], sum(left.pop(node, 0) for node in step.nodes), parts.gpu)
        for step, name in zip(parts.program.steps, names, strict=True)
    ]
    return Estimate(parts.gpu, tuple(found))


def kernel_estimate(step: Step, compiled: CompiledKernel, macs: int, gpu: Gpu) -> KernelEstimate:
    """That of a step that multiplies so often."""
    problem = getattr(step.schedule, "problem", None)
    kind = type(problem).__name__ if problem else "general schedule"
    kind += f" {TF32}" if isinstance(getattr(problem, "factor", None), Tf32) else ""
    used = {parameter.argument for launch in compiled.launches for parameter in launch.parameters}
    moved = sum(argument.bytes for number, argument in enumerate(step.arguments) if number in used)
    arithmetic = macs / (_peak_rate(step, problem, gpu) * gpu.multiprocessors * _hertz(gpu))
    memory = moved / (gpu.bandwidth * 1e9)
    multiplying, tile = _multiplying(compiled.launches, problem), _tile(problem)
    launches = [
        _launch(
            launch,
            compiled.code.usage[launch.name],
            macs if launch is multiplying else 0,
            problem,
            gpu,
            waited_for=_waited_for(tile, gpu, is_multiplying=launch is multiplying),
        )
        for launch in compiled.launches
    ]
    roofline = max(arithmetic, memory)
    return KernelEstimate(step.name, step.nodes, kind, macs, moved, roofline, memory > arithmetic, tuple(launches))


def _peak_rate(step: Step, problem: Any, gpu: Gpu) -> float:
    """Multiply-adds of a multiprocessor in a cycle at most, of what the model multiplies, also where a kernel makes
    fewer: of bytes, and of short floats that a kernel multiplies as such, those of tensor cores."""
    factor = getattr(problem, "factor", None)
    is_bytes = isinstance(factor, Bytes | MatrixBytes)
    if is_bytes or sum(argument.dtype in BYTE_TYPES for argument in step.arguments[:-1]) > 1:
        return max(WORD * INTEGER_LANES, gpu.byte_products)
    return float(factor.rate(gpu)) if factor else gpu.capability.lanes


def _waited_for(tile: Tile | None, gpu: Gpu, *, is_multiplying: bool) -> float:
    """Bytes that a thread waits for at once: of tiles what is on its way of the factors, or one vector of each part
    where parts are added up; of other kernels one vector."""
    if tile is None:
        return VECTOR_BYTES
    return tile.asked_for(gpu) if is_multiplying else tile.parts * VECTOR_BYTES


def _multiplying(launches: Collection[PlannedLaunch], problem: Any) -> PlannedLaunch:
    """The launch that has the multiply-adds: of a tile the first, else the one with most threads."""
    return next(iter(launches)) if _tile(problem) else max(launches, key=lambda one: one.blocks * one.threads)


def _launch(
    launch: PlannedLaunch, usage: Usage, macs: int, problem: Any, gpu: Gpu, *, waited_for: float
) -> LaunchEstimate:
    """That of a launch each of whose threads waits for so many bytes at once."""
    held, tile = occupancy(gpu.capability, launch.threads, usage), _tile(problem)
    resident, turns = max(1, held.blocks), -(-launch.blocks // gpu.multiprocessors)
    if tile and macs:
        cycles = tile.launch_cycles(gpu, problem.factor, launch.blocks, tile.steps(problem.depth), resident)
    elif isinstance(problem, Attention):
        cycles = problem.launch_cycles(gpu, launch.blocks, resident)
    else:
        warps = min(resident, turns) * -(-launch.threads // WARP)
        cycles = macs / launch.blocks * turns / _rate(warps, problem, gpu)
    cycles = max(cycles, _memory_cycles(launch, resident, gpu, waited_for))
    return LaunchEstimate(launch, usage, held, cycles / _hertz(gpu))


def _rate(warps: int, problem: Any, gpu: Gpu) -> float:
    """Multiply-adds of a multiprocessor in a cycle by so many warps, whose factors come from the first-level cache."""
    loaded = ITEM * (1 + 1 / problem.run) if isinstance(problem, Depthwise) else 2 * ITEM
    return min(gpu.capability.lanes, FIRST_LEVEL_BYTES / loaded) * min(1.0, warps / BUSY_WARPS)


def _memory_cycles(launch: PlannedLaunch, resident: int, gpu: Gpu, waited_for: float) -> float:
    """Those of the launch's bytes, each thread that is there waiting for so many at once."""
    moved = sum(parameter.elements * ITEM_BYTES[parameter.dtype] for parameter in launch.parameters)
    waiting = min(launch.blocks, resident * gpu.multiprocessors) * launch.threads
    rate = min(gpu.bytes_per_cycle, waiting * waited_for / LATENCY)
    return max(moved / rate, LATENCY)


def _tile(problem: Any) -> Tile | None:
    return getattr(problem, "tile", None)


def _hertz(gpu: Gpu) -> float:
    return gpu.clock * 1e9


def _whole(amount: int, granule: int) -> int:
    return -(-amount // granule) * granule

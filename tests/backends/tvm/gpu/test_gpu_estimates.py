"""Estimates for GPUs: occupancy by NVIDIA's rules, and the time of a kernel by its bytes and multiply-adds."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from gpu_models import build, lowered, needs_nvrtc
from sketch import Sketch, aten
from test_integer import convolution

from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.estimate import Estimate, estimate, occupancy
from lvc.backends.tvm.gpu.gpus import CAPABILITIES, CHIPS
from lvc.backends.tvm.gpu.kernels.tile import LAUNCH
from lvc.backends.tvm.gpu.nvrtc import Usage
from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.measure.kernels import kernels_of


@pytest.mark.parametrize(
    ("taken", "held"),
    [
        # a warp takes 84 * 32 = 2688, in whole 256s 2816; 16384 of a partition hold 5, four partitions 20, or 5 blocks
        ((80, 128, 84, 8448), (5, 20, "registers")),
        # 20000 + 1024 of the driver are 21120 in whole 128s; 164 KiB hold 7
        ((80, 64, 32, 20000), (7, 14, "shared memory")),
        # nothing is the driver's before 8.0: 10900 are 11008 in whole 256s, of which 64 KiB hold 5
        ((75, 128, 32, 10900), (5, 20, "shared memory")),
        # 1024 threads of a multiprocessor are 4 blocks of 256
        ((75, 256, 32, 0), (4, 32, "threads")),
        # as many blocks as there may be
        ((86, 32, 16, 0), (16, 16, "blocks")),
        # a warp takes 65 * 32 = 2080, so 2304; a partition holds 7, all hold 28, and a block has 32
        ((90, 1024, 65, 0), (0, 0, "registers")),
        ((90, 1024, 64, 0), (1, 32, "registers")),
    ],
)
def test_occupancy_is_what_the_rules_give(taken: tuple[int, int, int, int], held: tuple[int, int, str]) -> None:
    """Worked by hand from the rules of ``cuda_occupancy.h`` and the limits of the CUDA C++ Programming Guide."""
    number, threads, registers, shared = taken
    found = occupancy(CAPABILITIES[number], threads, Usage(registers, shared, 0, 0))
    assert (found.blocks, found.warps, found.limit) == held
    assert found.most_warps == CAPABILITIES[number].threads // 32


CALCULATOR = """
#include <cstdio>
#include <cuda_occupancy.h>

int main() {
    int number, threads, registers, shared, of_sm, of_block, most_threads;
    while (std::scanf("%d %d %d %d %d %d %d", &number, &threads, &registers, &shared, &of_sm, &of_block, &most_threads)
           == 7) {
        cudaOccDeviceProp chip;
        chip.computeMajor = number / 10, chip.computeMinor = number % 10, chip.maxThreadsPerBlock = 1024;
        chip.maxThreadsPerMultiprocessor = most_threads, chip.regsPerBlock = 65536, chip.regsPerMultiprocessor = 65536;
        chip.warpSize = 32, chip.sharedMemPerBlock = 49152, chip.sharedMemPerMultiprocessor = of_sm;
        chip.numSms = 1, chip.sharedMemPerBlockOptin = of_block, chip.reservedSharedMemPerBlock = of_sm - of_block;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = shared;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF, kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = 0, kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        state.cacheConfig = CACHE_PREFER_SHARED, state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
        cudaOccResult result;
        int status = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &chip, &kernel, &state, threads, 0);
        std::printf("%d\\n", status ? -1 : result.activeBlocksPerMultiprocessor);
    }
}
"""
KNOWN = (70, 75, 80, 86, 87, 89, 90)
"""What the calculators of toolkits from 12 on know."""


def _calculator() -> Path | None:
    """The folder of NVIDIA's header, which the wheel of the CUDA runtime brings."""
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((file.parent for place in places for file in place.glob("*/include/cuda_occupancy.h")), None)


@pytest.mark.skipif(not (_calculator() and shutil.which("g++")), reason="there is no cuda_occupancy.h or no g++")
def test_occupancy_is_what_the_calculator_of_nvidia_gives(tmp_path: Path) -> None:
    cases = list(
        itertools.product(KNOWN, (32, 64, 96, 128, 256, 512, 1024), range(16, 256, 7), (0, 1, 4352, 12544, 33000))
    )
    lines = []
    for number, threads, registers, shared in cases:
        of = CAPABILITIES[number]
        lines.append(f"{number} {threads} {registers} {shared} {of.shared} {of.block_shared} {of.threads}")
    source, program = tmp_path / "occupancy.cc", tmp_path / "occupancy"
    source.write_text(CALCULATOR)
    subprocess.run(["g++", "-w", "-I", str(_calculator()), str(source), "-o", str(program)], check=True)
    said = subprocess.run([str(program)], input="\n".join(lines), capture_output=True, text=True, check=True)
    ours = [
        occupancy(CAPABILITIES[number], threads, Usage(registers, shared, 0, 0)).blocks
        for number, threads, registers, shared in cases
    ]
    theirs = [int(line) for line in said.stdout.split()]
    assert len(ours) == len(theirs)
    assert [(case, a, b) for case, a, b in zip(cases, ours, theirs, strict=True) if a != b] == []


def estimated(model: Model, target: str) -> Estimate:
    parts = build(model, target).parts
    assert isinstance(parts, Parts)
    return estimate(parts, {node.name: macs(node) for node in calls(model.module.graph)})


@needs_nvrtc
def test_a_convolution_is_bound_by_arithmetic_and_takes_longer_with_fewer_multiprocessors() -> None:
    s = Sketch()
    model = s.model(s.conv(s.input(1, 64, 56, 56), 64, 3))
    found = {name: estimated(model, f"cuda:{name}") for name in ("a100", "orin")}
    for name, gpu in (("a100", CHIPS["a100"]), ("orin", CHIPS["orin"])):
        (kernel,) = [one for one in found[name].kernels if one.kind == "Conv2d"]
        assert kernel.macs == 64 * 64 * 9 * 56 * 56
        assert kernel.bytes == 4 * (2 * 64 * 56 * 56 + 64 * 64 * 9 + 64)
        assert not kernel.is_bound_by_memory
        assert kernel.roofline == pytest.approx(2 * 64 * 64 * 9 * 56 * 56 / gpu.peak)
        assert kernel.share < 1
        assert kernel.spills == 0
        assert sum(one.macs for one in found[name].kernels) == kernel.macs  # of what moves the result none
    large, small = found.values()
    longest = max(kernel.roofline for kernel in large.kernels)
    assert longest == pytest.approx(11.86e-6, rel=0.01)  # 231.2 M operations at 19.49 T a second
    assert small.seconds > 2 * large.seconds
    assert large.launching == pytest.approx(large.launches * LAUNCH)
    assert large.seconds == pytest.approx(sum(kernel.seconds for kernel in large.kernels) + large.launching)


@needs_nvrtc
def test_what_is_built_says_what_its_kernels_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = Sketch()
    model = s.model(s.conv(s.input(1, 64, 28, 28), 64, 3))
    artefact = build(model, "cuda:a100")
    container.write(artefact, tmp_path / "net.lvc")
    assert main(["inspect", str(tmp_path / "net.lvc"), "--per-op"]) == 0
    said = capsys.readouterr().out
    account = kernels_of(artefact)
    assert account is not None
    assert [kernel.name for kernel in account.kernels] == ["input1 to NCHW4c", "sketch", "output 0"]
    assert account == estimated(model, "cuda:a100").account().titled({"conv2d_default": "sketch"})
    assert "NVIDIA A100 (40 GB, SXM4)" in said
    assert "0 of 3 kernels spill" in said


@needs_nvrtc
def test_large_convolutions_come_to_seven_tenths_of_the_roofline() -> None:
    """Those of resnet50 that are hardest to divide over 108 multiprocessors, by the model that docs/gpu.md tells."""
    for channels, size, filters, kernel in ((64, 56, 64, 3), (256, 14, 256, 3), (512, 7, 2048, 1), (256, 14, 1024, 1)):
        s = Sketch()
        found = estimated(s.model(s.conv(s.input(1, channels, size, size), filters, kernel)), "cuda:a100")
        (layer,) = [one for one in found.kernels if one.kind == "Conv2d"]
        assert layer.macs > 50e6
        assert layer.share > 0.7
        assert not layer.spills


@needs_nvrtc
def test_no_kernel_is_better_than_the_roofline() -> None:
    """Deep sums in parts, whose parts are no bytes of the roofline; depthwise, general and elementwise kernels."""
    s = Sketch()
    x, row = s.input(1, 256, 8, 8), s.input(1, 64)
    parted = s.conv(x, 32, 3)
    depthwise = s.conv(parted, 32, 3, groups=32)
    pooled = s.call(aten.max_pool2d.default, depthwise, [2, 2], [2, 2])
    linear = s.call(aten.linear.default, row, s.stored(torch.randn(10, 64)), None)
    found = estimated(s.model(pooled, linear), "cuda:a100")
    kinds = {kernel.kind: kernel for kernel in found.kernels}
    assert kinds.keys() == {"Conv2d", "Depthwise", "general schedule"}
    assert len(kinds["Conv2d"].launches) == 2
    assert kinds["Conv2d"].bytes == 4 * (256 * 64 + 32 * 64 + 256 * 32 * 9 + 32)
    assert kinds["Depthwise"].is_bound_by_memory
    assert all(0 < kernel.share <= 1 for kernel in found.kernels)
    assert found.launches == sum(len(kernel.launches) for kernel in found.kernels)
    assert found.roofline < found.seconds


@needs_nvrtc
@pytest.mark.parametrize(("chip", "kind"), [("t4", "Conv2d"), ("a100", "TensorConv2d")])
def test_the_roofline_in_eight_bits_is_that_of_tensor_cores(chip: str, kind: str) -> None:
    """Also where the kernel uses ``dp4a``."""
    s = Sketch()
    x = s.input(1, 128, 28, 28, dtype=torch.uint8)
    outputs = convolution(s, x, 128), convolution(s, x, 128, groups=128)
    found, gpu = estimated(s.model(*outputs), f"cuda:{chip}"), CHIPS[chip]
    kernels = {kernel.macs: kernel for kernel in found.kernels if kernel.macs}
    assert kernels.keys() == {128 * 128 * 9 * 28 * 28, 128 * 9 * 28 * 28}
    tiled, depthwise = kernels[max(kernels)], kernels[min(kernels)]
    assert (tiled.kind, depthwise.kind) == (kind, "Depthwise")
    peak = 1e9 * gpu.byte_products * gpu.multiprocessors * gpu.clock
    assert tiled.roofline == pytest.approx(max(tiled.macs / peak, tiled.bytes / gpu.bandwidth / 1e9))
    assert all(kernel.share < 1 for kernel in kernels.values())


@needs_nvrtc
def test_the_roofline_of_halves_is_that_of_tensor_cores() -> None:
    s = Sketch()
    model = lowered(s.model(s.conv(s.input(8, 256, 56, 56), 256, 3)), "float16")
    (kernel,) = [one for one in estimated(model, "cuda:a100").kernels if one.kind == "TensorConv2d"]
    assert not kernel.is_bound_by_memory
    assert kernel.roofline == pytest.approx(2 * kernel.macs / 312e12, rel=0.01)
    assert 0.5 < kernel.share < 1

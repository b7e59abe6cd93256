"""The emulated GPU against plain arithmetic: banks, sectors, vectors, dot products of bytes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from cuda_on_cpu import Counts, EmulationError, library_of, memory, run_launch

from lvc.backends.tvm.gpu.compiled import Parameter, PlannedLaunch

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")


def emulate(body: str, *given: np.ndarray, blocks: int = 1, threads: int = 32) -> tuple[np.ndarray, Counts]:
    """Run a kernel ``made`` of 32 int32 from arrays of int32, which it calls ``x0``, ``x1``."""
    parameters = [Parameter(number, "int32", len(values), False) for number, values in enumerate(given)]
    launch = PlannedLaunch("k", blocks, threads, (*parameters, Parameter(len(given), "int32", 32, True)))
    reads = "".join(f"LVC_GLOBAL(const int, x{number}, {len(values)}), " for number, values in enumerate(given))
    text = f"LVC_KERNEL(k, {threads})({reads}LVC_GLOBAL(int, made, 32)) {{ const int t = LVC_THREAD; {body} }}"
    room = [memory(4 * len(values)) for values in (*given, range(32))]
    for space, values in zip(room, given, strict=False):
        space[:] = np.ascontiguousarray(values, np.int32).view(np.uint8)
    counts = run_launch(library_of(text, [launch]), launch, [space.ctypes.data for space in room])
    return room[-1].view(np.int32), counts


def through_shared(stride: int) -> str:
    """Every thread stores and loads an element of shared memory, so far from its neighbour's."""
    size = 31 * stride + 1
    place = f"t * {stride}"
    stored = f"LVC_SHARED(int, s, {size}); LVC_STORE(s, {place}, t); LVC_BARRIER();"
    return f"{stored} LVC_STORE(made, t, LVC_LOAD(s, {place}));"


@pytest.mark.parametrize(("stride", "passes"), [(1, 1), (2, 2), (8, 8), (32, 32), (33, 1)])
def test_conflicts_of_banks_are_counted(stride: int, passes: int) -> None:
    found, counts = emulate(through_shared(stride))
    assert found.tolist() == list(range(32))
    assert (counts.wavefronts, counts.least_wavefronts) == (2 * passes, 2)


def test_vectors_pass_the_banks_in_four_parts() -> None:
    body = (
        "LVC_SHARED(int, s, 128); LVC_LOCAL(int, own, 4); for (int i = 0; i < 4; i++) LVC_STORE(own, i, t);"
        "LVC_COPY(16, s, t * 4, own, 0); LVC_BARRIER(); LVC_COPY(16, own, 0, s, 124 - t * 4);"
        "LVC_STORE(made, t, LVC_LOAD(own, 3));"
    )
    found, counts = emulate(body)
    assert found.tolist() == list(range(31, -1, -1))
    assert (counts.wavefronts, counts.least_wavefronts) == (8, 8)


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32)])
def test_sectors_of_global_memory_are_counted(stride: int, sectors: int) -> None:
    x = np.arange(32 * stride)
    found, counts = emulate(f"LVC_STORE(made, t, LVC_LOAD(x0, t * {stride}));", x)
    assert found.tolist() == x[::stride].tolist()
    assert (counts.sectors, counts.least_sectors) == (sectors + 4, 8)


def test_dot_products_of_bytes() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, (32, 4)).astype(np.int8) for _ in range(2))
    c = rng.integers(-1000, 1000, 32)
    words = [values.reshape(-1).view(np.int32) for values in (a, b)]
    body = "LVC_STORE(made, t, LVC_DP4A(LVC_LOAD(x0, t), LVC_LOAD(x1, t), LVC_LOAD(x2, t)));"
    found, _ = emulate(body, *words, c)
    assert found.tolist() == (c + (a.astype(int) * b).sum(1)).tolist()


def test_blocks_that_share_an_element_of_global_memory() -> None:
    with pytest.raises(EmulationError, match="race: global element 0 was written by another thread, block 1"):
        emulate("LVC_BARRIER(); LVC_STORE(made, t, t);", blocks=2)


def test_a_constant_that_is_written() -> None:
    body = "LVC_STORE(x0, t, t);"
    with pytest.raises(EmulationError, match="a constant is written"):
        emulate(body, np.arange(32))


def test_threads_that_part_at_a_barrier() -> None:
    with pytest.raises(EmulationError, match="threads part at a barrier"):
        emulate("if (t < 7) { LVC_BARRIER(); } LVC_STORE(made, t, t);")

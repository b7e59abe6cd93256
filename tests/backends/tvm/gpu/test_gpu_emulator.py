"""The emulated GPU against plain arithmetic: banks, sectors, vectors, dot products of bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cuda_on_cpu import Counts, EmulationError, library_of, memory, run_launch

from lvc.backends.tvm.bfloat16 import to_bits
from lvc.backends.tvm.gpu.compiled import Parameter, PlannedLaunch
from lvc.backends.tvm.short_floats import widened_values
from lvc.compiler.ir.tf32 import to_tf32

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")


def emulate(
    body: str, *given: np.ndarray, blocks: int = 1, threads: int = 32, size: int = 32
) -> tuple[np.ndarray, Counts]:
    """Run a kernel ``made`` of 32 int32, or of ``size``, from arrays of int32, which it calls ``x0``, ``x1``."""
    parameters = [Parameter(number, "int32", len(values), False) for number, values in enumerate(given)]
    launch = PlannedLaunch("k", blocks, threads, (*parameters, Parameter(len(given), "int32", size, True)))
    reads = "".join(f"LVC_GLOBAL(const int, x{number}, {len(values)}), " for number, values in enumerate(given))
    text = f"LVC_KERNEL(k, {threads})({reads}LVC_GLOBAL(int, made, {size})) {{ const int t = LVC_THREAD; {body} }}"
    room = [memory(4 * len(values)) for values in (*given, range(size))]
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


# The fragments of mma.m16n8k8 in TF32, mma.m16n8k16 and mma.m16n8k32, as the PTX ISA has them: where the elements lie
# that a thread holds.
def place_of_a(thread: int, i: int, bytes: int) -> tuple[int, int]:
    group, member, word = thread >> 2, thread % 4, 4 // bytes
    if bytes == 4:
        return group + (0 if i in (0, 2) else 8), member + (0 if i < 2 else 4)
    if bytes == 2:
        row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
        return row, member * 2 + (i & 1) + (0 if i < 4 else 8)
    row = group if 0 <= i < 4 or 8 <= i < 12 else group + 8
    return row, member * word + (i & 3) + (0 if i < 8 else 16)


def place_of_b(thread: int, i: int, bytes: int) -> tuple[int, int]:
    group, member = thread >> 2, thread % 4
    if bytes == 4:
        return member + 4 * i, group
    if bytes == 2:
        return member * 2 + (i & 1) + (0 if i < 2 else 8), group
    return member * 4 + (i & 3) + (0 if i < 4 else 16), group


def place_of_c(thread: int, i: int) -> tuple[int, int]:
    return (thread >> 2) + (0 if i < 2 else 8), thread % 4 * 2 + (i & 1)


def fragments(matrix: np.ndarray, place: Callable[[int, int], tuple[int, int]], each: int) -> np.ndarray:
    """What all threads hold of a matrix, as words."""
    held = [matrix[place(thread, i)] for thread in range(32) for i in range(each)]
    return np.array(held, matrix.dtype).view(np.int32)


def multiplied(kind: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a b + c`` by the emulated tensor cores; words of ``c`` are those of its sums."""
    bytes, total = a.dtype.itemsize, "float" if c.dtype == np.float32 else "int"
    body = (
        "LVC_LOCAL(unsigned, a, 4); LVC_LOCAL(unsigned, b, 2); "
        f"LVC_LOCAL({total}, d, 4); LVC_COPY(16, a, 0, x0, t * 4);"
        "LVC_COPY(8, b, 0, x1, t * 2); LVC_COPY(16, d, 0, x2, t * 4);"
        f"LVC_MMA({kind}, d, 0, a, 0, b, 0); LVC_COPY(16, made, t * 4, d, 0);"
    )
    made, _ = emulate(
        body,
        fragments(a, lambda thread, i: place_of_a(thread, i, bytes), 16 // bytes),
        fragments(b, lambda thread, i: place_of_b(thread, i, bytes), 8 // bytes),
        fragments(c, place_of_c, 4),
        size=128,
    )
    found = np.zeros_like(c)
    for number, value in enumerate(made.view(c.dtype)):
        found[place_of_c(number // 4, number % 4)] = value
    return found


@pytest.mark.parametrize("kind", ["lvc_int8", "lvc_uint8"])
def test_products_of_matrices_of_bytes(kind: str) -> None:
    rng = np.random.default_rng(0)
    low, dtype = (-128, np.int8) if kind == "lvc_int8" else (0, np.uint8)
    a = rng.integers(low, low + 256, (16, 32)).astype(dtype)
    b = rng.integers(-128, 128, (32, 8)).astype(np.int8)
    c = rng.integers(-1000, 1000, (16, 8)).astype(np.int32)
    np.testing.assert_array_equal(multiplied(kind, a, b, c), c + a.astype(int) @ b.astype(int))


@pytest.mark.parametrize("kind", ["lvc_half", "lvc_uint16"])
def test_products_of_matrices_of_halves(kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 16), (16, 8)))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    if kind == "lvc_half":
        short = [values.astype(np.float16) for values in (a, b)]
        wide = [values.astype(float) for values in short]
    else:
        short = [to_bits(values) for values in (a, b)]
        wide = [widened_values(values).astype(float) for values in short]
    found = multiplied(kind, short[0], short[1], c)
    np.testing.assert_array_equal(found, (c + wide[0] @ wide[1]).astype(np.float32))


def test_products_of_matrices_in_tf32() -> None:
    rng = np.random.default_rng(0)
    a, b = (to_tf32(torch.from_numpy(rng.standard_normal(shape).astype(np.float32))) for shape in ((16, 8), (8, 8)))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    wanted = c + a.double().numpy() @ b.double().numpy()
    np.testing.assert_array_equal(multiplied("float", a.numpy(), b.numpy(), c), wanted.astype(np.float32))
    with pytest.raises(EmulationError, match="a factor is no TF32"):
        multiplied("float", a.numpy() + np.float32(2**-20), b.numpy(), c)


def test_rounding_to_tf32() -> None:
    """Ties away from zero, the largest numbers to infinity, and what is no number to none."""
    patterns = np.random.default_rng(0).integers(-(2**31), 2**31, 26).tolist()
    patterns += [0x3F801000, 0x3F800FFF, 0x7F7FFFFF, 0x7F800000, 0x7F800001, -1]
    body = "LVC_LOCAL(unsigned, own, 1); LVC_STORE(own, 0, LVC_LOAD(x0, t)); LVC_TO_TF32(own, 0);"
    made, _ = emulate(f"{body} LVC_STORE(made, t, LVC_LOAD(own, 0));", np.array(patterns, np.int64).astype(np.int32))
    given = torch.tensor(patterns, dtype=torch.int64).to(torch.int32).view(torch.float32)
    np.testing.assert_array_equal(made.view(np.float32), to_tf32(given).numpy())


def test_matrices_from_shared_memory() -> None:
    """Thread ``8 i + r`` gives the place of row ``r`` of matrix ``i``, thread ``4 r + c`` gets word ``c`` of row ``r``
    of each; without a conflict where rows begin in different banks."""
    rows = np.random.default_rng(0).permutation(32)
    body = (
        "LVC_SHARED(int, s, 640); for (int i = 0; i < 5; i++) LVC_COPY(16, s, (i * 32 + t) * 4, x0, (i * 32 + t) * 4);"
        "LVC_BARRIER(); LVC_LOCAL(unsigned, own, 4); LVC_MATRICES(own, 0, s, LVC_LOAD(x1, t) * 20);"
        "LVC_COPY(16, made, t * 4, own, 0);"
    )
    x = np.arange(640)
    made, counts = emulate(body, x, np.arange(32), size=128)
    shared = x.reshape(32, 20)
    wanted = [shared[8 * i + t // 4, t % 4] for t in range(32) for i in range(4)]
    assert made.tolist() == wanted
    assert counts.wavefronts == counts.least_wavefronts == 4 * 5 + 4
    made, _ = emulate(body, x, rows, size=128)
    assert made.tolist() == [shared[rows[8 * i + t // 4], t % 4] for t in range(32) for i in range(4)]


def test_transposed_matrices_from_shared_memory() -> None:
    """Thread ``4 c + r`` gets elements ``2 r`` and ``2 r + 1`` of column ``c``, for elements of two bytes."""
    rows = np.random.default_rng(1).permutation(32)
    body = (
        "LVC_SHARED(int, s, 640); for (int i = 0; i < 5; i++) LVC_COPY(16, s, (i * 32 + t) * 4, x0, (i * 32 + t) * 4);"
        "LVC_BARRIER(); LVC_LOCAL(unsigned, own, 4); LVC_TURNED(own, 0, s, LVC_LOAD(x1, t) * 20);"
        "LVC_COPY(16, made, t * 4, own, 0);"
    )
    halves = np.arange(1280, dtype=np.uint16)
    made, _ = emulate(body, halves.view(np.int32), rows, size=128)
    shared = halves.reshape(32, 40)
    wanted = [shared[rows[8 * i + t % 4 * 2 + e], t // 4] for t in range(32) for i in range(4) for e in range(2)]
    assert made.view(np.uint16).tolist() == wanted


@pytest.mark.parametrize("mask", [1, 2, 16])
def test_exchanges_within_a_warp(mask: int) -> None:
    body = f"LVC_LOCAL(int, own, 2); LVC_STORE(own, 0, LVC_LOAD(x0, t)); LVC_EXCHANGE(own, 1, own, 0, {mask});"
    made, _ = emulate(f"{body} LVC_STORE(made, t, LVC_LOAD(own, 1));", np.arange(100, 132))
    assert made.tolist() == [100 + (t ^ mask) for t in range(32)]


def test_an_exchange_that_a_thread_does_not_come_to() -> None:
    body = (
        "LVC_LOCAL(int, own, 1); LVC_STORE(own, 0, t); if (t != 3) { LVC_EXCHANGE(own, 0, own, 0, 1); } LVC_BARRIER();"
    )
    with pytest.raises(EmulationError, match="threads of a warp part"):
        emulate(f"{body} LVC_STORE(made, t, t);")


def test_a_warp_that_parts_before_what_it_does_together() -> None:
    body = (
        "LVC_SHARED(int, s, 640); LVC_LOCAL(unsigned, own, 4);"
        "if (t != 9) { LVC_MATRICES(own, 0, s, 0); } LVC_BARRIER(); LVC_STORE(made, t, t);"
    )
    with pytest.raises(EmulationError, match="threads of a warp part"):
        emulate(body)


def test_a_row_of_a_matrix_that_another_thread_of_the_warp_has_just_written() -> None:
    body = (
        "LVC_SHARED(int, s, 640); LVC_LOCAL(unsigned, own, 4); LVC_STORE(s, t * 20, t);"
        "LVC_MATRICES(own, 0, s, t * 20); LVC_STORE(made, t, t);"
    )
    with pytest.raises(EmulationError, match="race: shared"):
        emulate(body)


AHEAD = "LVC_SHARED(int, s, 128); LVC_COPY_AHEAD(16, s, t * 4, x0, t * 4); LVC_COMMIT();"


def test_copies_ahead_are_there_for_all_after_a_barrier() -> None:
    """In groups: the first is waited for while the second is on its way."""
    body = (
        AHEAD + "LVC_SHARED(int, r, 32); LVC_COPY_AHEAD(4, r, t, x0, t + 7); LVC_COMMIT(); LVC_WAIT(1); LVC_BARRIER();"
        "const int first = LVC_LOAD(s, 127 - t); LVC_WAIT(0); LVC_BARRIER();"
        "LVC_STORE(made, t, first * 1000 + LVC_LOAD(r, 31 - t));"
    )
    found, counts = emulate(body, np.arange(128))
    assert found.tolist() == [(127 - t) * 1000 + 38 - t for t in range(32)]
    assert counts.wavefronts == counts.least_wavefronts


@pytest.mark.parametrize(
    ("then", "fault"),
    [
        ("LVC_BARRIER();", "is still being copied"),
        ("LVC_WAIT(1); LVC_BARRIER();", "is still being copied"),
        ("LVC_WAIT(0);", "race: shared"),
    ],
)
def test_copies_ahead_that_are_not_waited_for(then: str, fault: str) -> None:
    read = "LVC_STORE(made, t, LVC_LOAD(s, (t * 4 + 124) % 128));"
    with pytest.raises(EmulationError, match=fault):
        emulate(f"{AHEAD} {then} {read} LVC_WAIT(0);", np.arange(128))


def test_copies_ahead_that_nobody_waits_for() -> None:
    with pytest.raises(EmulationError, match="a copy is never waited for"):
        emulate(f"{AHEAD} LVC_STORE(made, t, t);", np.arange(128))


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

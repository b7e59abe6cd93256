"""Matrix products against numpy's, and the tiles that all kernels are cut into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import AVX2, build, check, random, run
from tvm import te
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.kernels import batch_matmul, matmul
from lvc.backends.tvm.cpu.kernels.batch_matmul import BatchMatmul
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.kernels.register_tile import cut, tile_count
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS, TileCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.compiler.errors import CompileError


@pytest.mark.parametrize("size", [(5, 19, 13), (1, 100, 40), (1, 5, 3), (197, 10, 64), (7, 1, 9), (50, 64, 31)])
def test_matmul_matches_pytorch(size: tuple[int, int, int]) -> None:
    m, n, k = size
    problem, data, weight = Matmul(m, n, k), random(m, k), random(n, k)
    sums = torch.from_numpy(data) @ torch.from_numpy(weight).T
    check(matmul, problem, [data, matmul.pack_weight(problem, weight)], sums)


def test_matmul_in_parts() -> None:
    problem, data, weight = Matmul(33, 100, 24), random(33, 24), random(100, 24)
    sums = torch.from_numpy(data) @ torch.from_numpy(weight).T
    knobs = matmul.Knobs(vectors=2, rows=6, row_parts=4, panel_parts=5, unroll=4)
    check(matmul, problem, [data, matmul.pack_weight(problem, weight)], sums, knobs=knobs)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [(3, 7, 20, 11), (2, 17, 9, 24), (1, 1, 1, 1)])
def test_batch_matmul_matches_pytorch(size: tuple[int, int, int, int], transposed: bool) -> None:
    batch, m, n, k = size
    a, b = random(batch, m, k), random(*((batch, n, k) if transposed else (batch, k, n)))
    right = torch.from_numpy(b).mT if transposed else torch.from_numpy(b)
    check(batch_matmul, BatchMatmul(batch, m, n, k, transposed), [a, b], torch.from_numpy(a) @ right)


def test_a_tail_that_moves_elements_is_refused() -> None:
    problem = Matmul(4, 8, 8)
    data, weight = te.placeholder((4, 8), "float32"), te.placeholder(matmul.packed_shape(problem), "float32")
    sums = matmul.compute(problem, data, weight)
    flipped = te.compute((4, 8), lambda i, j: sums[3 - i, j], name="flipped")
    sch = Schedule(te.create_prim_func([data, weight, flipped]))
    with pytest.raises(CompileError, match="moves its elements"):
        matmul.schedule(sch, problem, AVX2)


@given(st.integers(1, 300), st.integers(1, 30))
def test_tiles_cover_an_extent_and_differ_by_one(extent: int, size: int) -> None:
    runs = cut(extent, size)
    tiles = [run.start + i * run.size for run in runs for i in range(run.count)]
    sizes = [run.size for run in runs for _ in range(run.count)]
    assert tiles == [sum(sizes[:i]) for i in range(len(sizes))]
    assert sum(sizes) == extent
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert tile_count(runs) == -(-extent // size)


@given(st.integers(1, 64), st.integers(1, 400), st.integers(1, 5000), st.sampled_from([AVX2, Vector(Avx512())]))
def test_a_tile_fits_the_registers(panels: int, pixels: int, depth: int, vector: Vector) -> None:
    cost = TileCost(vector, depth)
    vectors, scalars = cost.best_tile((panels, pixels))
    assert cost.fits(vectors, scalars)
    assert vectors in HEIGHTS


def test_large_planes_fill_the_registers() -> None:
    vectors, scalars = TileCost(AVX2, 576).best_tile((64, 3136))
    assert vectors * scalars == 12
    vectors, scalars = TileCost(Vector(Avx512()), 576).best_tile((64, 3136))
    assert vectors * scalars >= 24


def test_threads_do_not_change_the_result() -> None:
    problem, knobs = Matmul(60, 96, 40), matmul.Knobs(vectors=2, rows=6, row_parts=3, panel_parts=4)
    operands = [random(60, 40), matmul.pack_weight(problem, random(96, 40))]
    library, residual = build(matmul, problem, [a.shape for a in operands], knobs=knobs), random(60, 96)
    use_threads = tvm.get_global_func("runtime.config_threadpool")
    use_threads(1, 1)
    alone = run(library, operands, residual)
    use_threads(1, 2)
    together = run(library, operands, residual)
    np.testing.assert_array_equal(alone, together)


def test_the_last_panel_is_not_written_past_its_end() -> None:
    problem = Matmul(3, 5, 8)
    library = build(matmul, problem, [(3, 8), matmul.packed_shape(problem)])
    assert library is not None
    assert np.count_nonzero(matmul.pack_weight(problem, np.ones((5, 8), np.float32))[0, :, 5:]) == 0

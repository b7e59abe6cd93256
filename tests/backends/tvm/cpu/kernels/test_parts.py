"""How work is split into tasks: enough of them, and threads that end together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvc.backends.tvm.cpu.kernels.parts import COPIED_BYTES, LEAST_CYCLES, TASK_CYCLES, TASKS, Work, row_parts
from lvc.backends.tvm.cpu.machine import GENERIC


def work(cycles: float, lines: int = 28, tiles: int = 8) -> Work:
    return Work(cycles, lines, tiles, data=1 << 12, weights=1 << 12)


def test_little_work_is_one_task() -> None:
    assert work(2 * LEAST_CYCLES - 1).split(1) == (1, 1)


@pytest.mark.parametrize("cycles", [2 * LEAST_CYCLES, 3.5 * LEAST_CYCLES, TASK_CYCLES, 5 * TASK_CYCLES, 1e9])
def test_more_work_is_shared_evenly_by_two_and_by_four_threads(cycles: float) -> None:
    rows, columns = work(cycles).split(1)
    assert rows * columns % 4 == 0
    assert rows * columns <= 2 * TASKS * 4


@pytest.mark.parametrize("threads", [2, 8, 16, 64])
def test_large_work_is_cut_for_as_many_threads_as_there_are(threads: int) -> None:
    machine = replace(GENERIC, threads=threads)
    rows, columns = Work(1e9, 56, 8, data=1 << 12, weights=1 << 12, machine=machine).split(1)
    assert rows * columns % threads == 0
    assert row_parts(1, 64, 1000, threads) % min(threads, 64) == 0


def test_small_work_is_not_cut_for_all_threads() -> None:
    machine = replace(GENERIC, threads=64)
    rows, columns = Work(5 * LEAST_CYCLES, 56, 8, data=1 << 12, weights=1 << 12, machine=machine).split(1)
    assert 2 <= rows * columns <= 8
    assert row_parts(1, 64, 3, 64) <= 4


def test_copies_of_the_work_are_tasks_already() -> None:
    assert work(10 * TASK_CYCLES).split(16) == (1, 1)


@pytest.mark.parametrize(("is_copied", "parts"), [(True, 16), (False, 4)])
def test_large_copies_are_cut_further(is_copied: bool, parts: int) -> None:
    image = Work(4 * TASK_CYCLES, 112, 1, data=3 * 4 * 224 * 224, weights=1 << 12, margin=0.5, is_copied=is_copied)
    assert image.split(1) == (parts, 1)
    assert (image.data / parts > COPIED_BYTES) == (not is_copied)


@pytest.mark.parametrize(
    ("outer", "rows", "wanted", "parts"),
    [
        (4, 14, 1, 1),  # even as it is
        (3, 28, 3, 4),  # two threads would share three tasks badly
        (1, 56, 16, 28),  # 16 parts of 4 rows would leave two empty
        (1, 1, 16, 1),  # nothing to cut
        (2, 7, 100, 7),
    ],
)
def test_rows_are_cut_into_tasks_that_end_together(outer: int, rows: int, wanted: int, parts: int) -> None:
    assert row_parts(outer, rows, wanted, 4) == parts

"""The memory plan: values that are alive together never share bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.backends.tvm.memory import ALIGNMENT, PAGE, Lifetime, assign, live_bytes, plan_workspace, scratch_bytes
from lvc.backends.tvm.program import Argument, Kind, Place, Program, Step, Storage
from lvc.backends.tvm.schedules.general import GeneralSchedule

LIFETIMES = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=40)


@given(LIFETIMES)
@settings(deadline=None)
def test_live_values_never_overlap(rows: list[tuple[int, int, int]]) -> None:
    values = [Lifetime(Storage(Kind.WORKSPACE, size), first, first + length) for size, first, length in rows]
    end = assign(values)
    for number, value in enumerate(values):
        start, stop = value.storage.position, value.storage.position + value.storage.bytes
        assert start % ALIGNMENT == 0
        assert stop <= end
        for other in values[:number]:
            apart = stop <= other.storage.position or other.storage.position + other.storage.bytes <= start
            assert apart or not value.overlaps(other)


def test_a_chain_needs_two_places() -> None:
    values = [Lifetime(Storage(Kind.WORKSPACE, 640), step, step + 1) for step in range(10)]
    assert assign(values) == 2 * 640


def step(*places: tuple[Storage, int, int]) -> Step:
    """A step with operands of so many bytes at offsets of storages, the result last."""
    arguments = (Argument(Place(storage, offset), (size,), "uint8") for storage, offset, size in places)
    return Step("step", (), None, GeneralSchedule(), tuple(arguments))


def test_a_part_of_a_concatenation_lives_from_the_step_that_writes_it() -> None:
    given, made = Storage(Kind.INPUT, 100), Storage(Kind.OUTPUT, 100)
    joined, between = Storage(Kind.WORKSPACE, 640), Storage(Kind.WORKSPACE, 320)
    steps = [
        step((given, 0, 100), (joined, 0, 128)),
        step((joined, 0, 128), (between, 0, 320)),
        step((between, 0, 320), (joined, 128, 512)),
        step((joined, 0, 640), (made, 0, 100)),
    ]
    program = Program(steps=steps)
    assert live_bytes(program) == 128 + 512 + 320
    assert plan_workspace(program) == 640 + 320
    assert live_bytes(Program(steps=steps[:2])) == 128 + 320
    assert live_bytes(Program()) == plan_workspace(Program()) == 0


def test_the_best_order_is_taken() -> None:
    """By size alone the large values come first, and the long-lived one lies above a gap that nobody can use."""
    sizes = [(64, 0, 9), (640, 0, 0), (704, 1, 1), (640, 9, 9)]
    storages = [Storage(Kind.WORKSPACE, size) for size, *_ in sizes]
    steps = [
        step(*((storage, 0, size) for storage, (size, *ends) in zip(storages, sizes, strict=True) if number in ends))
        for number in range(10)
    ]
    program = Program(steps=steps)
    assert plan_workspace(program) == live_bytes(program) == 64 + 704


def test_scratch_counts_the_largest_of_each_buffer_in_use_at_once() -> None:
    assert scratch_bytes([(5 * PAGE, 10), (2 * PAGE, PAGE + 1), ()]) == (5 + 2) * PAGE
    assert scratch_bytes([]) == 0

"""The memory plan: values that are alive together never share bytes."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.memory import ALIGNMENT, Lifetime, Piece, assign, live_bytes, plan_workspace, scratch_bytes
from lvc.backends.tvm.program import Argument, Kind, Place, Program, Step, Storage

PIECES = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=3)


def lifetime(*pieces: tuple[int, int, int]) -> Lifetime:
    """A storage of pieces one after the other: bytes, first step, and how many steps follow."""
    ends = list(accumulate((size for size, *_ in pieces), initial=0))
    places = zip(ends, ends[1:], pieces, strict=False)
    made = tuple(Piece(begin, end, first, first + length) for begin, end, (_, first, length) in places)
    return Lifetime(Storage(Kind.WORKSPACE, ends[-1]), made)


@given(st.lists(PIECES, min_size=1, max_size=20))
@settings(deadline=None)
def test_live_values_never_overlap(rows: list[list[tuple[int, int, int]]]) -> None:
    """At no step is a byte in use by two; as each step would see it."""
    values = [lifetime(*row) for row in rows]
    end = assign(values)
    assert all(value.storage.position % ALIGNMENT == 0 for value in values)
    assert all(0 <= value.storage.position <= end - value.storage.bytes for value in values)
    for step in range(27):
        used = sorted(
            (value.storage.position + piece.begin, value.storage.position + piece.end)
            for value in values
            for piece in value.pieces
            if piece.first <= step <= piece.last
        )
        assert all(before[1] <= after[0] for before, after in pairwise(used))


def test_a_chain_needs_two_places() -> None:
    values = [lifetime((640, step, 1)) for step in range(10)]
    assert assign(values) == 2 * 640


def test_what_is_not_written_yet_is_lent() -> None:
    """The place of the later parts of a concatenation holds what its first part is made of, as in DenseNet."""
    joined, large = lifetime((64, 1, 2), (640, 3, 0)), lifetime((640, 0, 1))
    assert assign([joined, large]) == 64 + 640


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


def test_scratch_is_that_of_the_kernel_that_needs_most() -> None:
    assert scratch_bytes([(640, 10), (64, 65), ()]) == 640 + 64
    assert scratch_bytes([]) == 0

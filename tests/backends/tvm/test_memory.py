"""The memory plan: values that are alive together never share bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.backends.tvm.memory import ALIGNMENT, Lifetime, assign
from lvc.backends.tvm.program import Kind, Storage

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

"""What the emulated GPU must find: kernels that are wrong in ways that a right result may hide."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from cuda_on_cpu import EmulationError
from gpu_models import emulate, needs_nvrtc
from sketch import Sketch, aten, numbers

pytestmark = needs_nvrtc


def without_barrier(number: int) -> Callable[[str], str]:
    """Take out the so-manyth barrier."""

    def edit(text: str) -> str:
        places = [found.start() for found in re.finditer(r"LVC_BARRIER\(\);", text)]
        place = places[number] if len(places) > number else -1
        return text if place < 0 else text[:place] + text[place:].replace("LVC_BARRIER();", "", 1)

    return edit


def replaced(pattern: str, by: str, most: int = 1) -> Callable[[str], str]:
    """Put another text in the place of the first that fits in each kernel, or of all with 0."""
    return lambda text: re.sub(pattern, by, text, count=most)


def convolution(edit: Callable[[str], str]) -> None:
    """One launch with two buffers of shared memory, used in turns; nothing behind its last pixel."""
    s = Sketch()
    emulate(s.model(s.conv(s.input(1, 3, 9, 9), 8, 3)), numbers(1, 3, 9, 9), edit=edit)


def rows(edit: Callable[[str], str]) -> None:
    """Stages of a row in shared memory, with sums by teams of threads."""
    s = Sketch()
    emulate(s.model(s.call(aten.softmax.int, s.input(5, 70), -1)), numbers(5, 70), edit=edit)


def relu(edit: Callable[[str], str], size: int = 130) -> None:
    s = Sketch()
    emulate(s.model(s.call(aten.relu.default, s.input(1, size))), numbers(1, size), edit=edit)


@pytest.mark.parametrize("number", [0, 1])
def test_a_barrier_that_is_missing_in_a_convolution(number: int) -> None:
    with pytest.raises(EmulationError, match="race: shared"):
        convolution(without_barrier(number))


@pytest.mark.parametrize("number", range(4))
def test_a_barrier_that_is_missing_in_a_row(number: int) -> None:
    with pytest.raises(EmulationError, match="race: shared"):
        rows(without_barrier(number))


def test_a_bound_that_is_off_by_one() -> None:
    relu(lambda text: text)
    with pytest.raises(EmulationError, match="out of bounds: global element 130 of 130"):
        relu(replaced(r"< 130\b", "< 131"))


def test_a_bound_that_leaves_the_last_element_out() -> None:
    with pytest.raises(EmulationError, match="unwritten: 1 elements"):
        relu(replaced(r"< 130\b", "< 129"))


def test_a_window_that_reads_beside_the_image() -> None:
    with pytest.raises(EmulationError, match="out of bounds: global"):
        convolution(replaced(r" < 9\b", " < 10", 0))


def test_a_vector_that_begins_between_two() -> None:
    with pytest.raises(EmulationError, match="misaligned"):
        relu(replaced(r"(LVC_COPY\(16, read0, 0, x0, )", r"\g<1>1 + "), size=128)


def test_two_threads_that_write_one_element() -> None:
    with pytest.raises(EmulationError, match="race: global"):
        relu(replaced(r"LVC_THREAD", "LVC_THREAD / 2"))


def test_scattered_accesses_are_counted() -> None:
    s = Sketch()
    x = s.call(aten.relu.default, s.input(64, 128))
    emulated = emulate(s.model(x, s.call(aten.permute.default, x, [1, 0])), numbers(64, 128))
    straight, turned = emulated.counts.values()
    assert straight.coalesced == 1
    assert turned.coalesced < 0.5

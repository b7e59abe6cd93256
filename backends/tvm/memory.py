"""A static memory plan: one workspace for all intermediate values, its bytes shared by values not alive together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from lvc.backends.tvm.program import Kind, Program, Storage

ALIGNMENT = 64
PAGE = 4096  # bytes by which the pools of TVM's runtime grow


@dataclass(frozen=True)
class Lifetime:
    """A storage, with the first and the last step that touch it."""

    storage: Storage
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last

    @property
    def steps(self) -> int:
        return self.last - self.first + 1


# what is placed first; which of these wins depends on the network
_ORDERS: tuple[Callable[[Lifetime], int], ...] = (
    lambda value: value.storage.bytes,
    lambda value: value.steps,
    lambda value: value.storage.bytes * value.steps,
)


def plan_workspace(program: Program) -> int:
    """Set the positions of all workspace storages; return the bytes of the workspace."""
    values = lifetimes(program)
    return assign(values, min(_ORDERS, key=lambda order: assign(values, order)))


def plan_constants(program: Program) -> int:
    """Set the positions of all stored tensors, one after the other; return the bytes that they take."""
    end = 0
    for storage, _ in program.constants:
        storage.position = end
        end = align(end + storage.bytes)
    return end


def plan_prepared(program: Program, stored: int) -> int:
    """Set the positions of the constants that setup makes, behind so many bytes of stored tensors; return the bytes
    that they take."""
    end = stored
    for step in program.setup:
        made = step.arguments[-1].place.storage
        made.position = end
        end = align(end + made.bytes)
    return end - stored


def scratch_bytes(kernels: Iterable[Sequence[int]]) -> int:
    """What the pool of one thread grows to, from the bytes that each kernel takes from it, the largest buffer first.

    The pool keeps what is given back, and grows a buffer where none is large enough (``WorkspacePool`` of TVM's
    runtime); so for each buffer that is in use beside others the largest one counts.
    """
    return sum(max(sizes) for sizes in zip_longest(*(map(_paged, kernel) for kernel in kernels), fillvalue=0))


def _paged(size: int) -> int:
    return -(-size // PAGE) * PAGE


def lifetimes(program: Program) -> list[Lifetime]:
    """When each workspace storage is in use."""
    spans: dict[Storage, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        for argument in step.arguments:
            storage = argument.place.storage
            if storage.kind is Kind.WORKSPACE:
                spans[storage] = (spans.get(storage, (number, 0))[0], number)
    return [Lifetime(storage, first, last) for storage, (first, last) in spans.items()]


def live_bytes(program: Program) -> int:
    """The most bytes of the workspace that hold values still to be read, which no plan can undercut.

    A piece of a storage, such as a part of a concatenation, lives from the step that writes it.
    """
    spans: dict[tuple[Storage, int], list[int]] = {}
    cuts = _cuts(program)
    for number, step in enumerate(program.steps):
        for argument in step.arguments:
            storage, begin = argument.place.storage, argument.place.offset
            for start, end in pairwise(cuts.get(storage, ())):
                if begin <= start and end <= begin + argument.bytes:
                    spans.setdefault((storage, end), [end - start, number, number])[2] = number
    pieces = spans.values()
    alive = [
        sum(size for size, first, last in pieces if first <= number <= last) for number in range(len(program.steps))
    ]
    return max(alive, default=0)


def _cuts(program: Program) -> dict[Storage, list[int]]:
    """Where the arguments within each storage of the workspace begin and end, in order."""
    cuts: dict[Storage, set[int]] = {}
    for argument in (argument for step in program.steps for argument in step.arguments):
        storage, begin = argument.place.storage, argument.place.offset
        if storage.kind is Kind.WORKSPACE and not storage.is_scratch:
            cuts.setdefault(storage, set()).update((begin, begin + argument.bytes))
    return {storage: sorted(places) for storage, places in cuts.items()}


def assign(values: Sequence[Lifetime], order: Callable[[Lifetime], int] = _ORDERS[0]) -> int:
    """Give storages their positions, those that ``order`` gives most to first, each into the tightest gap; return the
    end of the last one."""
    placed: list[Lifetime] = []
    end = 0
    for value in sorted(values, key=lambda v: (-order(v), -v.storage.bytes, v.first)):
        neighbours = sorted(
            (other.storage.position, other.storage.position + other.storage.bytes)
            for other in placed
            if other.overlaps(value)
        )
        value.storage.position = _tightest_gap(neighbours, value.storage.bytes)
        placed.append(value)
        end = max(end, align(value.storage.position + value.storage.bytes))
    return end


def _tightest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """The aligned start of the smallest free range that holds ``size`` bytes, or the end of all that is taken."""
    best, best_size, start = -1, 0, 0
    for begin, end in taken:
        room = begin - start
        if room >= size and (best < 0 or room < best_size):
            best, best_size = start, room
        start = max(start, align(end))
    return best if best >= 0 else start


def align(size: int) -> int:
    """Round up to the alignment of vectors."""
    return -(-size // ALIGNMENT) * ALIGNMENT

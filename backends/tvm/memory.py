"""A static memory plan: one workspace for all intermediate values, its bytes shared by values not alive together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

from lvc.backends.tvm.program import Kind, Program, Storage

ALIGNMENT = 64


@dataclass(frozen=True)
class Piece:
    """Bytes of a storage from ``begin`` to ``end``, with the first and the last step that touch them."""

    begin: int
    end: int
    first: int
    last: int

    def overlaps(self, other: Piece) -> bool:
        """Whether both are in use at once."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Lifetime:
    """When a storage is in use: each of its pieces, such as the parts of a concatenation, on its own."""

    storage: Storage
    pieces: tuple[Piece, ...]

    @cached_property
    def first(self) -> int:
        """The first step that touches it."""
        return min(piece.first for piece in self.pieces)

    @cached_property
    def last(self) -> int:
        """The last step that touches it."""
        return max(piece.last for piece in self.pieces)

    @property
    def steps(self) -> int:
        """How many steps it is in use for."""
        return self.last - self.first + 1

    def clashes(self, other: Lifetime) -> Iterator[tuple[int, int]]:
        """The positions, between two that are free, where a piece would share bytes with one of a placed storage."""
        if self.first > other.last or other.first > self.last:
            return
        place = other.storage.position
        for mine, its in product(self.pieces, other.pieces):
            if mine.overlaps(its):
                yield place + its.begin - mine.end, place + its.end - mine.begin


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
    """What one thread needs for the buffers that kernels take within a task, given those of each kernel."""
    return max((sum(map(align, sizes)) for sizes in kernels), default=0)


def lifetimes(program: Program) -> list[Lifetime]:
    """When each workspace storage is in use, in the order of first use."""
    cuts, spans = _cuts(program), dict[Storage, dict[tuple[int, int], tuple[int, int]]]()
    for number, step in enumerate(program.steps):
        for argument in step.arguments:
            storage, begin = argument.place.storage, argument.place.offset
            for start, end in pairwise(cuts.get(storage, ())):
                if begin <= start and end <= begin + argument.bytes:
                    pieces = spans.setdefault(storage, {})
                    pieces[start, end] = (pieces.get((start, end), (number, 0))[0], number)
    return [
        Lifetime(storage, tuple(Piece(*place, *span) for place, span in sorted(pieces.items())))
        for storage, pieces in spans.items()
    ]


def live_bytes(program: Program) -> int:
    """The most bytes of the workspace that hold values still to be read, which no plan can undercut.

    A piece of a storage, such as a part of a concatenation, lives from the step that writes it.
    """
    values = [value for value in lifetimes(program) if not value.storage.is_scratch]
    pieces = [piece for value in values for piece in value.pieces]
    alive = [
        sum(piece.end - piece.begin for piece in pieces if piece.first <= number <= piece.last)
        for number in range(len(program.steps))
    ]
    return max(alive, default=0)


def _cuts(program: Program) -> dict[Storage, list[int]]:
    """Where the arguments within each storage of the workspace begin and end, in order."""
    cuts: dict[Storage, set[int]] = {}
    for argument in (argument for step in program.steps for argument in step.arguments):
        storage, begin = argument.place.storage, argument.place.offset
        if storage.kind is Kind.WORKSPACE:
            cuts.setdefault(storage, set()).update((begin, begin + argument.bytes))
    return {storage: sorted(places) for storage, places in cuts.items()}


def assign(values: Sequence[Lifetime], order: Callable[[Lifetime], int] = _ORDERS[0]) -> int:
    """Give storages their positions, those that ``order`` gives most to first, each into the tightest gap; return the
    end of the last one."""
    placed: list[Lifetime] = []
    end = 0
    for value in sorted(values, key=lambda v: (-order(v), -v.storage.bytes, v.first)):
        taken = sorted(clash for other in placed for clash in value.clashes(other))
        value.storage.position = _tightest_gap(taken)
        placed.append(value)
        end = max(end, align(value.storage.position + value.storage.bytes))
    return end


def _tightest_gap(taken: Iterable[tuple[int, int]]) -> int:
    """The aligned position in the smallest gap that is free, or behind all that is taken; what is taken lies between
    two positions that are not."""
    best, best_room, start = -1, 0, 0
    for low, high in taken:
        room = low - start
        if room >= 0 and (best < 0 or room < best_room):
            best, best_room = start, room
        start = max(start, align(high))
    return best if best >= 0 else start


def align(size: int) -> int:
    """Round up to the alignment of vectors."""
    return -(-size // ALIGNMENT) * ALIGNMENT

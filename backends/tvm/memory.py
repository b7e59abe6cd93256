"""A static memory plan: one workspace for all intermediate values, its bytes shared by values not alive together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lvc.backends.tvm.program import Kind, Program, Storage

ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A storage, with the first and the last step that touch it."""

    storage: Storage
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan_workspace(program: Program) -> int:
    """Set the positions of all workspace storages; return the bytes of the workspace."""
    return assign(lifetimes(program))


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


def lifetimes(program: Program) -> list[Lifetime]:
    """When each workspace storage is in use."""
    spans: dict[Storage, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        for argument in step.arguments:
            storage = argument.place.storage
            if storage.kind is Kind.WORKSPACE:
                spans[storage] = (spans.get(storage, (number, 0))[0], number)
    return [Lifetime(storage, first, last) for storage, (first, last) in spans.items()]


def assign(values: Sequence[Lifetime]) -> int:
    """Give storages their positions, the largest first, each into the tightest gap; return the end of the last one."""
    placed: list[Lifetime] = []
    end = 0
    for value in sorted(values, key=lambda v: (-v.storage.bytes, v.first)):
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

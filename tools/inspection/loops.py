"""Loops of object code: which instructions stand in each, and which of them are reductions."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from inspection.assembly import Function, Instruction
from inspection.instructions import Meaning, meaning_of

COUNTED = ("multiply_adds", "loads", "stores", "spills", "pointers", "moves")


@dataclass(frozen=True)
class Counts:
    """What one turn of a loop does with vectors. ``spills`` are vectors that it stores to and loads from the stack,
    ``pointers`` other accesses to fixed places there; ``accumulators`` are registers that hold sums from turn to turn.
    """

    multiply_adds: int = 0
    loads: int = 0
    stores: int = 0
    spills: int = 0
    pointers: int = 0
    moves: int = 0
    accumulators: int = 0


@dataclass(frozen=True)
class Loop:
    """A loop: the address of its head, and its instructions without those of the loops in it."""

    head: int
    instructions: tuple[Instruction, ...]
    is_innermost: bool
    meaning: Meaning

    @cached_property
    def counts(self) -> Counts:
        """What stands in the loop itself."""
        kinds = [self.meaning.kind(one) for one in self.instructions]
        counted = {name: sum(name in kind for kind in kinds) for name in COUNTED}
        return Counts(**counted, accumulators=len(self.accumulators))

    @cached_property
    def accumulators(self) -> frozenset[str]:
        """Registers that are added to, and written by nothing else but moves from one to another and what brings them
        back from the stack: so their sums come from the turn before."""
        summed, other, moved = set[str](), set[str](), list[tuple[str, str]]()
        for one in self.instructions:
            kind, register = self.meaning.kind(one), self.meaning.written(one)
            if "sums" in kind:
                summed.add(register)
            elif "moves" in kind:
                moved.append((self.meaning.read(one), register))
            elif "spills" not in kind:
                other.add(register)
        found = (summed | {to for _, to in moved}) - other - {""}
        while strange := {to for source, to in moved if to in found and source not in found}:
            found -= strange
        return frozenset(found & summed)


def loops(function: Function) -> list[Loop]:
    """The loops of a function in order of their heads.

    A jump back is a loop if there is a way from its target to it; those of one head are one loop.
    """
    flow = _Flow(function)
    bodies: dict[int, set[int]] = {}
    for last, head in flow.jumps_back():
        if body := flow.between(head, last):
            bodies.setdefault(head, set()).update(body)
    meaning = meaning_of(function)
    found = []
    for head, body in sorted(bodies.items()):
        inside = set().union(*(other for start, other in bodies.items() if start != head and start in body))
        own = tuple(one for block in sorted(body - (inside & body)) for one in flow.blocks[block])
        found.append(Loop(flow.blocks[head][0].address, own, not inside, meaning))
    return found


def reductions(found: Iterable[Loop]) -> list[Loop]:
    """The loops that keep sums of products in registers: they have accumulators, or are innermost and store nothing.
    Then the innermost loops that multiply and add more than any of them: a reduction need not be a loop of its own."""
    found = [loop for loop in found if loop.counts.multiply_adds]
    summing = [loop for loop in found if loop.accumulators or (loop.is_innermost and not loop.counts.stores)]
    most = max((loop.counts.multiply_adds for loop in summing), default=0)
    unrolled = [loop for loop in found if loop.is_innermost and loop.counts.multiply_adds > most]
    if summing:
        return summing + unrolled
    return [loop for loop in unrolled if loop.counts.multiply_adds == max(one.counts.multiply_adds for one in unrolled)]


def whole(function: Function) -> Loop:
    """All instructions of a function, as if it were run in turns."""
    return Loop(function.instructions[0].address, function.instructions, True, meaning_of(function))


class _Flow:
    """A function as blocks of instructions, each named by its number, and where each goes."""

    def __init__(self, function: Function) -> None:
        self.meaning = meaning_of(function)
        instructions = function.instructions
        addresses = {one.address for one in instructions}
        targets = {one.address: target for one in instructions if (target := self.meaning.target(one)) in addresses}
        after = {b.address for a, b in pairwise(instructions) if self.meaning.is_jump(a)}
        starts = sorted({instructions[0].address, *targets.values(), *after})
        self.blocks: list[list[Instruction]] = [[] for _ in starts]
        for one in instructions:
            self.blocks[bisect.bisect_right(starts, one.address) - 1].append(one)
        number = {start: i for i, start in enumerate(starts)}
        self.goes_to = [self._successors(i, targets, number) for i in range(len(starts))]

    def _successors(self, block: int, targets: dict[int, int], number: dict[int, int]) -> set[int]:
        last = self.blocks[block][-1]
        found = {number[targets[last.address]]} if last.address in targets else set()
        if not self.meaning.is_end(last) and block + 1 < len(self.blocks):
            found.add(block + 1)
        return found

    def jumps_back(self) -> Iterator[tuple[int, int]]:
        """The blocks that jump to one that is not behind them."""
        for block, successors in enumerate(self.goes_to):
            yield from ((block, target) for target in successors if target <= block)

    def between(self, head: int, last: int) -> set[int]:
        """The blocks on ways from one to another that stay between them; empty if there is no way."""
        inside = range(head, last + 1)
        comes_from: dict[int, set[int]] = {block: set() for block in inside}
        for block in inside:
            for target in self.goes_to[block]:
                if target in comes_from and target != head:
                    comes_from[target].add(block)
        forward = _reached(head, lambda block: self.goes_to[block] & comes_from.keys())
        return forward & _reached(last, comes_from.__getitem__) if last in forward else set()


def _reached(first: int, step: Callable[[int], Iterable[int]]) -> set[int]:
    """All that can be reached by any number of steps."""
    found, pending = {first}, [first]
    while pending:
        fresh = set(step(pending.pop())) - found
        found |= fresh
        pending.extend(fresh)
    return found

"""What each byte of memory holds while a program runs, followed step by step to prove that its plan is right.

The invariant: when a step reads a value, every byte of the value's place holds that byte of it, written by the one step
that makes it, and a step writes nothing that it reads. Places inside a concatenation, views, and storages that take
turns in the workspace are all covered, for nothing but addresses and sizes is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvc.backends.tvm.program import Argument, Bytes, Contents, Kind, Program, joined


class PlanError(Exception):
    """A step would read bytes that are not those of the value that it wants: a defect of the compiler."""


def check_plan(program: Program) -> None:
    """Raise `PlanError` unless every step, and every output, reads what it wants where the program says."""
    memory = _Memory(program)
    for argument in program.inputs:
        memory.write(argument)
    for step in program.steps:
        *read, made = step.arguments
        scratch = [argument for argument in read if argument.place.storage.is_scratch]
        wanted = [argument for argument in read if argument.value and argument not in scratch]
        for argument in scratch:
            memory.write(argument)
        for argument in wanted:
            memory.check(argument, step.name)
        memory.write(made)
        for argument in [*wanted, *scratch]:
            memory.check(argument, step.name, after=True)
    for number, argument in enumerate(program.outputs):
        memory.check(argument, f"output {number}")


class _Memory:
    """What lies where. ``segments`` are those of each memory: the workspace, every input and every output."""

    def __init__(self, program: Program) -> None:
        self.contents = program.contents
        self.segments: dict[tuple[Kind, int], list[tuple[int, Bytes]]] = {}

    def write(self, argument: Argument) -> None:
        """Put an argument's value into its place, over what was there."""
        space, begin = _address(argument)
        end = begin + argument.bytes
        kept = [piece for segment in self.segments.get(space, ()) for piece in _outside(*segment, begin, end)]
        for part in self._wanted(argument):
            kept.append((begin, part))
            begin += part.end - part.begin
        self.segments[space] = sorted(kept, key=lambda segment: segment[0])

    def check(self, argument: Argument, reader: str, *, after: bool = False) -> None:
        """Raise `PlanError` unless an argument's value lies at its place."""
        space, begin = _address(argument)
        end = begin + argument.bytes
        inside = [_inside(*segment, begin, end) for segment in self.segments.get(space, ())]
        found = joined(part for part in inside if part)
        if found != self._wanted(argument):
            moment = "overwrites what it reads" if after else "reads what is not there"
            raise PlanError(f"{reader} {moment}: {self._wanted(argument)} wanted, {found} found")

    def _wanted(self, argument: Argument) -> Contents:
        wanted = self.contents.get(argument.value) or joined([Bytes(argument.value, 0, argument.bytes)])
        size = sum(part.end - part.begin for part in wanted)
        if size != argument.bytes:
            raise PlanError(f"{argument.value} has {size} bytes, and its place {argument.bytes}")
        return wanted


def _address(argument: Argument) -> tuple[tuple[Kind, int], int]:
    storage, offset = argument.place.storage, argument.place.offset
    if storage.kind is Kind.WORKSPACE:
        return (Kind.WORKSPACE, 0), storage.position + offset
    return (storage.kind, storage.position), offset


def _outside(place: int, part: Bytes, begin: int, end: int) -> Iterator[tuple[int, Bytes]]:
    """The pieces of a segment that lie before and behind a range."""
    stop = place + part.end - part.begin
    if place < min(stop, begin):
        yield place, part.cut(0, min(stop, begin) - place)
    if max(place, end) < stop:
        yield max(place, end), part.cut(max(place, end) - place, stop - place)


def _inside(place: int, part: Bytes, begin: int, end: int) -> Bytes | None:
    """The piece of a segment that lies in a range."""
    first, last = max(place, begin), min(place + part.end - part.begin, end)
    return part.cut(first - place, last - place) if first < last else None

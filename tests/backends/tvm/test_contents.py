"""A plan that puts a value where something else lies is refused before there is code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sketch import Sketch
from torch.fx import Node

from lvc.backends.tvm.contents import PlanError, check_plan
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.general_schedule import GeneralSchedule
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.memory import plan_workspace
from lvc.backends.tvm.program import Argument, Bytes, Kind, Place, Program, Step, Storage, joined
from lvc.compiler.ir.dialect import aten

AVX2 = CpuCodeGenerator(Vector(Avx2()))


def argument(storage: Storage, value: str, size: int = 64, offset: int = 0) -> Argument:
    return Argument(Place(storage, offset), (size,), "uint8", value)


def step(name: str, *arguments: Argument) -> Step:
    return Step(name, (name,), None, GeneralSchedule(), arguments)


def program(*steps: Step, output: Argument, contents: dict[str, tuple[Bytes, ...]] | None = None) -> Program:
    given = argument(Storage(Kind.INPUT, 64), "x")
    return Program(inputs=[given], outputs=[output], steps=list(steps), contents=contents or {})


def test_bytes_that_follow_each_other_are_one_piece() -> None:
    parts = [Bytes("a", 0, 4), Bytes("a", 4, 9), Bytes("b", 0, 0), Bytes("b", 3, 5), Bytes("a", 9, 10)]
    assert joined(parts) == (Bytes("a", 0, 9), Bytes("b", 3, 5), Bytes("a", 9, 10))


def test_a_value_that_another_one_overwrote() -> None:
    given, first, second = (Storage(kind, 64) for kind in (Kind.INPUT, Kind.WORKSPACE, Kind.WORKSPACE))
    steps = [
        step("a", argument(given, "x"), argument(first, "a")),
        step("b", argument(given, "x"), argument(second, "b")),
    ]
    second.position = 64
    check_plan(program(*steps, output=argument(first, "a")))
    second.position = 60
    with pytest.raises(PlanError, match="output 0 reads what is not there"):
        check_plan(program(*steps, output=argument(first, "a")))


def test_a_step_may_not_write_what_it_reads() -> None:
    given, place = Storage(Kind.INPUT, 64), Storage(Kind.WORKSPACE, 64)
    steps = [
        step("a", argument(given, "x"), argument(place, "a")),
        step("b", argument(place, "a"), argument(place, "b")),
    ]
    with pytest.raises(PlanError, match="b overwrites what it reads"):
        check_plan(program(*steps, output=argument(place, "b")))


def test_a_step_may_not_use_what_it_reads_as_scratch() -> None:
    given, place = Storage(Kind.INPUT, 64), Storage(Kind.WORKSPACE, 64)
    scratch = Storage(Kind.WORKSPACE, 64, is_scratch=True)
    made = Storage(Kind.OUTPUT, 64)
    steps = [
        step("a", argument(given, "x"), argument(place, "a")),
        step("b", argument(place, "a"), argument(scratch, "scratch"), argument(made, "b")),
    ]
    with pytest.raises(PlanError, match="b reads what is not there"):
        check_plan(program(*steps, output=argument(made, "b")))
    scratch.position = 64
    check_plan(program(*steps, output=argument(made, "b")))


def test_parts_of_a_concatenation_lie_in_its_order() -> None:
    given, whole = Storage(Kind.INPUT, 64), Storage(Kind.WORKSPACE, 128)
    contents = {"cat": (Bytes("a", 0, 64), Bytes("b", 0, 64))}
    for offset, is_right in ((0, True), (64, False)):
        steps = [
            step("a", argument(given, "x"), argument(whole, "a", 64, offset)),
            step("b", argument(given, "x"), argument(whole, "b", 64, 64 - offset)),
        ]
        made = program(*steps, output=argument(whole, "cat", 128), contents=contents)
        if is_right:
            check_plan(made)
        else:
            with pytest.raises(PlanError, match="output 0"):
                check_plan(made)


def test_a_part_that_nobody_writes() -> None:
    given, whole = Storage(Kind.INPUT, 64), Storage(Kind.WORKSPACE, 128)
    contents = {"cat": (Bytes("a", 0, 64), Bytes("b", 0, 64))}
    steps = [step("a", argument(given, "x"), argument(whole, "a"))]
    with pytest.raises(PlanError, match="output 0"):
        check_plan(program(*steps, output=argument(whole, "cat", 128), contents=contents))


def nested() -> Program:
    """A lowered network with a concatenation inside another one."""
    sketch = Sketch()
    data = sketch.input(1, 3, 4, 4)
    parts = [sketch.conv(data, 16) for _ in range(3)]
    inner = sketch.call(aten.cat.default, parts[:2], 1)
    outer = sketch.call(aten.cat.default, [inner, parts[2]], 1)
    outputs: list[Node] = [sketch.conv(inner, 8), sketch.conv(outer, 8)]
    lowered = lower(sketch.model(*outputs), AVX2)
    plan_workspace(lowered)
    return lowered


def test_every_wrong_offset_in_a_real_plan_is_found() -> None:
    """Each argument within the workspace in turn is moved by 64 bytes: none of these plans passes."""
    check_plan(nested())
    moved = 0
    for number, item in enumerate(nested().steps):
        for place, given in enumerate(item.arguments):
            if given.place.storage.kind is not Kind.WORKSPACE:
                continue
            broken = nested()
            arguments = list(broken.steps[number].arguments)
            old = arguments[place].place
            arguments[place] = replace(arguments[place], place=Place(old.storage, old.offset + 64))
            broken.steps[number] = replace(broken.steps[number], arguments=tuple(arguments))
            with pytest.raises(PlanError):
                check_plan(broken)
            moved += 1
    assert moved >= 5

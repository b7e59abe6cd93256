"""Where arguments of kernels begin is what LLVM is told: parts of a concatenation lie as near as vectors may."""

from __future__ import annotations

from typing import Any

import pytest
from sketch import Sketch

from lvc.backends.tvm import BACKEND, build
from lvc.backends.tvm.cpu import objects
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.plain_functions import ALIGNED, make_plain
from lvc.backends.tvm.program import Kind, Program
from lvc.compiler.ir.dialect import aten
from lvc.compiler.pipeline.workspace import Workspace


def addresses(program: Program) -> list[int]:
    """Where each argument begins, counted from what begins at a multiple of 64 bytes."""
    places = [argument.place for step in [*program.setup, *program.steps] for argument in step.arguments]
    external = (Kind.INPUT, Kind.OUTPUT)
    return [place.offset + (0 if place.storage.kind in external else place.storage.position) for place in places]


@pytest.mark.parametrize(
    ("text", "size", "nearest"), [("x86-64-v2", 12, 16), ("x86-64-v3", 8, 32), ("x86-64-v4", 8, 64)]
)
def test_no_more_is_promised_than_the_plan_keeps(
    text: str, size: int, nearest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    programs: list[Program] = []
    compiled, checked = objects.compile_function, build.check_plan

    def compile_function(function: Any, name: str, options: dict[str, object], *, is_assembly: bool = False) -> Object:
        told.append(int(function.attrs[ALIGNED]))
        assert f'"storage_alignment", {told[-1]}' in make_plain(function, None, None).script().replace("T.int32", "")
        return compiled(function, name, options, is_assembly=is_assembly)

    def check_plan(program: Program) -> None:
        programs.append(program)
        checked(program)

    monkeypatch.setenv("LVC_CACHE", "")
    monkeypatch.setattr(objects, "compile_function", compile_function)
    monkeypatch.setattr(build, "check_plan", check_plan)
    sketch = Sketch()
    data = sketch.input(1, 2 * size)
    halves = [sketch.call(aten.slice.Tensor, data, 1, begin, begin + size) for begin in (0, size)]
    parts = [sketch.call(aten.softmax.int, half, 1) for half in halves]
    joined = sketch.call(aten.softmax.int, sketch.call(aten.cat.default, parts, 1), 1)
    target = BACKEND.parse_target(text)
    assert target is not None
    BACKEND.build(sketch.model(joined), target, Workspace(threads=1))
    assert set(told) == {nearest}
    assert all(address % nearest == 0 for address in addresses(programs[0]))
    assert nearest == 64 or any(address % 64 for address in addresses(programs[0]))

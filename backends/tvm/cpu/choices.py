"""How else a kernel may be made than by its rule: another algorithm, other knobs, in a form that can be kept.

The written form of a choice is a JSON object: the name of the kernel, and its free knobs. What such a text asks for is
made only if the kernel's own space has it, so that no text can ask for what its predicates refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lvc.backends.tvm.cpu import rules
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d, winograd
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.space import Space
from lvc.backends.tvm.cpu.kernels.winograd import Winograd
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor, NoSuchWay, Ways
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.cook_toom import PAIRS
from lvc.compiler.ir.graph import WINOGRAD

KERNEL = "kernel"
_MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d)
}
_TILES = {f"winograd{tile}": tile for tile in PAIRS}


@dataclass(frozen=True)
class _Algorithm:
    """A kernel by its name, for a problem of its own."""

    name: str
    module: Any
    problem: Any

    @property
    def saving(self) -> float:
        """How many times less work it is than in single precision by the definition."""
        elements = float(getattr(getattr(self.problem, "operand", None), "elements", 1))
        if isinstance(self.problem, Winograd):
            down, along = self.problem.transforms
            outputs, (height, width) = down.outputs * along.outputs, self.problem.plain.kernel
            return elements * outputs * height * width / self.problem.points
        return elements

    def space(self, vector: Vector) -> Space:
        found: Space = self.module.space(self.problem, vector)
        return found


def ways(schedule: KernelSchedule, vector: Vector) -> Ways:
    """The ways in which the kernel of a schedule may be made."""

    def others() -> Iterator[tuple[str, float]]:
        for algorithm in _algorithms(schedule, vector):
            space = algorithm.space(vector)
            yield from ((_text(algorithm.name, space, point), space.cycles(point)) for point in space.points)

    own = next(found for found in _algorithms(schedule, vector) if found.problem == schedule.problem)
    space = own.space(vector)
    rule = _text(own.name, space, space.point(schedule.knobs))
    return Ways(schedule.structure, rule, others, max(found.saving for found in _algorithms(schedule, vector)))


def anchor_of(call: Call, vector: Vector, text: str) -> Anchor | None:
    """Use the kernel for a call that a text chooses; `NoSuchWay` where the call has no such kernel, or the kernel no
    such knobs."""
    name, knobs = _read(text)
    if name in _TILES:
        return _filtered(call, vector, _TILES[name], knobs)
    if name not in _MODULES:
        raise NoSuchWay(f"there is no kernel '{name}'")
    found = _MODULES[name].anchor(call, vector)
    if found is None:
        raise NoSuchWay(f"'{name}' is no kernel for it")
    return rules.settled(found, call, vector, knobs)


def chosen(schedule: KernelSchedule, vector: Vector, text: str) -> KernelSchedule:
    """The schedule of a group's kernel with the knobs that a text chooses; `NoSuchWay` if it is of another kernel, or
    has no such knobs."""
    name, knobs = _read(text)
    if name != _name(schedule):
        raise NoSuchWay(f"'{name}' is no kernel for it")
    return replace(schedule, knobs=rules.chosen_knobs(schedule.kernel.space(schedule.problem, vector), knobs))


def _filtered(call: Call, vector: Vector, tile: int, knobs: Mapping[str, int]) -> Anchor:
    plain = conv2d.problem_of(call, vector)
    if plain is None or tile not in winograd.tiles_for(plain, vector, call.node.meta.get(WINOGRAD, 0)):
        raise NoSuchWay(f"it may not be computed by minimal filtering with tiles of {tile}")
    problem = Winograd(plain, tile)
    made = rules.chosen_knobs(winograd.space(problem, vector), knobs)
    return rules.settled(winograd.filtered(call, problem, vector, made), call, vector)


def _algorithms(schedule: KernelSchedule, vector: Vector) -> Iterator[_Algorithm]:
    """The kernels that may compute what a schedule is for."""
    problem = schedule.problem
    plain = problem.plain if isinstance(problem, Winograd) else problem
    own = _Algorithm(_name(schedule), schedule.kernel, problem)
    yield _Algorithm("conv2d", conv2d, plain) if plain is not problem else own
    if isinstance(plain, Conv2d):
        tiles = winograd.tiles_for(plain, vector, schedule.largest_tile)
        yield from (_Algorithm(text, winograd, Winograd(plain, tile)) for text, tile in _TILES.items() if tile in tiles)


def _name(schedule: KernelSchedule) -> str:
    return schedule.function.__module__.rpartition(".")[2]


def _text(name: str, space: Space, point: tuple[int, ...]) -> str:
    return json.dumps({KERNEL: name, **dict(zip(space.names, point, strict=True))})


def _read(text: str) -> tuple[str, dict[str, int]]:
    """The kernel and its knobs; `NoSuchWay` for a text that is no choice."""
    try:
        knobs = json.loads(text)
        name = str(knobs.pop(KERNEL))
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise NoSuchWay(f"'{text:.80}' is no choice") from error
    if not all(type(value) is int for value in knobs.values()):
        raise NoSuchWay(f"'{text:.80}' has a knob that is no integer")
    return name, knobs

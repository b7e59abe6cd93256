"""Loops whose number of turns is known while loading, written out turn by turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.known_loops import known_loop
from lvc.compiler.load.onnx_importer.ops.movement import sliced
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, constant, shape_of

aten = torch.ops.aten

LONGEST = 1024
"""Turns that are written out."""


@converts("Loop")
def loop(call: Call) -> list[Value]:
    """A body from turn number, condition and state to condition, state and what each turn gives."""
    known = known_loop(call)
    if known is not None:
        return known
    body = call.attributes["body"]
    state = [call[place] for place in range(2, len(call))]
    turns = LONGEST + 1 if call.get(0) is None else int(call.number(0, "number of turns"))
    condition = call.get(1)
    holds = condition is None or bool(call.tensor(1, "condition").item())
    going: Value = constant(True, torch.bool) if condition is None else condition
    rows: list[list[Value]] = []
    while holds and len(rows) < turns:
        _check(len(rows) + 1)
        going, *results = call.emitter.branch(body, call, [constant(len(rows)), going, *state])
        if not isinstance(going, Constant):
            raise Unsupported("goes on as long as a computed condition holds")
        state, holds = results[: len(state)], bool(going.tensor.item())
        rows.append(results[len(state) :])
    if not rows and len(call.outputs) > len(state):
        raise Unsupported("takes no turn, and what its turns give has no size")
    return [*state, *(_stacked(call, column, 0) for column in zip(*rows, strict=True))]


@converts("Scan")
def scan(call: Call) -> list[Value]:
    """A body from state and a slice of each sequence to state and a slice of each result."""
    if call.opset < 9:
        raise Unsupported("has a batch and lengths, as up to opset 8")
    body, count = call.attributes["body"], int(call.attribute("num_scan_inputs"))
    first = len(call) - count
    state, sequences = [call[i] for i in range(first)], [call[first + i] for i in range(count)]
    axes = [axis % len(shape_of(x)) for axis, x in zip(_each(call, "scan_input_axes", count), sequences, strict=True)]
    backwards = _each(call, "scan_input_directions", count)
    turns = shape_of(sequences[0])[axes[0]]
    _check(turns)
    rows = []
    for turn in range(turns):
        places = [turns - 1 - turn if back else turn for back in backwards]
        slices = [_slice(call, *part) for part in zip(sequences, axes, places, strict=True)]
        results = call.emitter.branch(body, call, [*state, *slices])
        state = results[:first]
        rows.append(results[first:])
    columns = list(zip(*rows, strict=True))
    reversed_, out_axes = (_each(call, f"scan_output_{name}", len(columns)) for name in ("directions", "axes"))
    made = []
    for column, back, axis in zip(columns, reversed_, out_axes, strict=True):
        made.append(_stacked(call, column[::-1] if back else column, axis))
    return [*state, *made]


def _check(turns: int) -> None:
    if turns > LONGEST:
        raise Unsupported(f"takes more than {LONGEST} turns, which are not written out")


def _each(call: Call, name: str, count: int) -> list[int]:
    return [int(value) for value in call.attribute(name) or [0] * count]


def _slice(call: Call, x: Value, axis: int, place: int) -> Value:
    shape = shape_of(x)
    return call.reshape(sliced(call, x, axis, place, place + 1), [*shape[:axis], *shape[axis + 1 :]])


def _stacked(call: Call, parts: Sequence[Value], axis: int) -> Value:
    shape = list(shape_of(parts[0]))
    axis %= len(shape) + 1
    return call.emit(aten.cat.default, [call.reshape(part, [*shape[:axis], 1, *shape[axis:]]) for part in parts], axis)

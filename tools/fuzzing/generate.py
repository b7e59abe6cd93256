"""Model number k of a seed: always the same."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzzing import moves_elements, moves_layers, moves_order, moves_places, moves_volumes
from fuzzing.program import Program, Step
from fuzzing.scope import SIZES, Move, Scope, Unfit
from lvc.compiler.ir.dialect import BY_NAME
from lvc.compiler.ir.spec import TensorSpec

MOVES = {
    **moves_layers.MOVES,
    **moves_elements.MOVES,
    **moves_places.MOVES,
    **moves_order.MOVES,
    **moves_volumes.MOVES,
}

NETWORK: dict[Move, float] = {
    moves_layers.conv2d: 10,
    moves_layers.linear: 2,
    moves_layers.conv_transpose2d: 1,
    moves_layers.pool: 2,
    moves_layers.some_activation: 2,
    moves_layers.activations: 1,
    moves_layers.upsample: 1,
    moves_elements.residual: 4,
    moves_elements.gate: 1,
    moves_places.cat: 3,
    moves_places.nested: 1,
    moves_places.head: 1,
    moves_places.shuffle: 1,
    moves_places.attention: 1,
    moves_places.slices: 1,
    moves_order.largest: 0.7,
    moves_order.indexed: 0.7,
    moves_order.scatter: 0.7,
    moves_volumes.conv3d: 0.7,
    moves_volumes.recurrence: 0.5,
    moves_volumes.deform: 0.5,
}
"""What networks are made of."""


def anything(step: Step, specs: dict[str, TensorSpec]) -> bool:
    return True


def of_dialect(step: Step, specs: dict[str, TensorSpec]) -> bool:
    return step.op in BY_NAME


def generate(rng: random.Random, can_spell: Callable[[Step, dict[str, TensorSpec]], bool] = anything) -> Program:
    """Draw a program of calls that an importer can spell."""
    scope = Scope(rng, can_spell, most=rng.choice((4_000, 20_000, 60_000, 300_000)))
    _inputs(scope)
    drawn = _moves(rng)
    moves, weights = list(drawn), list(drawn.values())
    wanted = rng.choice((1, 2, 3, 5, 8, 8, 12, 16, 24))
    for _ in range(8 * wanted):
        if len(scope.steps) >= wanted:
            break
        before = len(scope.steps)
        try:
            rng.choices(moves, weights)[0](scope)
        except Unfit:
            if rng.random() < 0.7:  # what a move left half done may stay
                _take_back(scope, before)
    return _finished(scope)


def _moves(rng: random.Random) -> dict[Move, float]:
    """Those of networks, or some of all: a program of few kinds goes deeper into what they do to each other (Groce et
    al. 2012, "Swarm testing")."""
    if rng.random() < 0.35:
        return NETWORK
    return {move: weight for move, weight in MOVES.items() if rng.random() < 0.4} or MOVES


def _take_back(scope: Scope, count: int) -> None:
    for step in scope.steps[count:]:
        del scope.known[step.name]
    del scope.steps[count:]


def _inputs(scope: Scope) -> None:
    rng = scope.random
    batch = rng.choice((1, 1, 1, 2, 3))
    way = rng.random()
    if way < 0.7:
        size = rng.choice(SIZES)
        other = size if rng.random() < 0.5 else rng.choice(SIZES)
        scope.input(batch, rng.choice((1, 3, 3, 3, 4, 8, 16, 17)), size, other)
    elif way < 0.85:
        scope.input(batch, rng.choice((1, 5, 16, 49, 50)), rng.choice((4, 7, 8, 16, 24, 32)))
    else:
        scope.input(*(rng.choice(SIZES) for _ in range(rng.choice((1, 2, 2, 5)))))
    if rng.random() < 0.2:
        first = scope.inputs["x0"].shape
        scope.input(*(size if rng.random() < 0.8 else 1 for size in first))


def _finished(scope: Scope) -> Program:
    """Choose outputs: the last values, some inside, sometimes an input or one value twice."""
    rng = scope.random
    names = [step.name for step in scope.steps] or list(scope.inputs)
    read = {name for step in scope.steps for name in step.operands}
    ends = [name for name in names if name not in read][-3:] or names[-1:]
    outputs = ends[::-1] if rng.random() < 0.3 else ends
    if rng.random() < 0.3:
        outputs = [*outputs, rng.choice(names)]
    if rng.random() < 0.05:
        outputs = [*outputs, rng.choice(list(scope.inputs))]
    if rng.random() < 0.9:
        outputs = list(dict.fromkeys(outputs))
    return Program(scope.inputs, scope.stored, tuple(scope.steps), tuple(outputs)).pruned()

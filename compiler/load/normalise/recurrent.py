"""LSTM, GRU and plain recurrent layers, written out step by step: a step is two products and what its gates do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

from lvc.compiler.load.normalise.builder import Builder, Operand, Result, Rule, Unsupported
from lvc.compiler.load.normalise.composite import written

aten = torch.ops.aten

LONGEST = 512
"""Steps that are written out."""

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State], State]
"""The next state, whose first part is the result, from what a step's input gives to all gates and the state so far."""


def run(inputs: Tensor, state: State, cell: Cell, *, backwards: bool = False) -> tuple[Tensor, State]:
    """Every step's result, ``(steps, batch, hidden)``, and the last state, of inputs ``(steps, batch, gates)``."""
    results = []
    order = range(len(inputs))
    for step in reversed(order) if backwards else order:
        state = cell(inputs[step], state)
        results.append(state[0])
    return torch.stack(results[::-1] if backwards else results), state


def _lstm_cell(weight: Tensor, bias: Tensor | None, projection: Tensor | None) -> Cell:
    """Gates in PyTorch's order: input, forget, cell, output."""

    def step(given: Tensor, state: State) -> State:
        hidden, cell = state
        i, f, g, o = (given + F.linear(hidden, weight, bias)).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return (hidden if projection is None else F.linear(hidden, projection)), cell

    return step


def _gru_cell(weight: Tensor, bias: Tensor | None, projection: Tensor | None) -> Cell:
    """Gates in PyTorch's order: reset, update, new."""

    def step(given: Tensor, state: State) -> State:
        (hidden,) = state
        r, z, n = given.chunk(3, -1)
        hr, hz, hn = F.linear(hidden, weight, bias).chunk(3, -1)
        update = torch.sigmoid(z + hz)
        new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
        return (new + update * (hidden - new),)

    return step


def _plain_cell(function: Callable[[Tensor], Tensor]) -> Callable[..., Cell]:
    def make(weight: Tensor, bias: Tensor | None, projection: Tensor | None) -> Cell:
        return lambda given, state: (function(given + F.linear(state[0], weight, bias)),)

    return make


def _layers(cell: Callable[..., Cell], states: int) -> Callable[..., tuple[Tensor, ...]]:
    """PyTorch's recurrent layers, one on the other: the results of the last, and the last states of each."""

    def meaning(
        x: Tensor,
        first: Sequence[Tensor],
        weights: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> tuple[Tensor, ...]:
        whole = x.dim() == 3
        x = x if whole else x.unsqueeze(1)
        x = x.transpose(0, 1) if batch_first and whole else x
        first = [state if whole else state.unsqueeze(1) for state in first]
        directions = 1 + bidirectional
        each = len(weights) // (num_layers * directions)
        last: list[State] = []
        for layer in range(num_layers):
            made = []
            for direction in range(directions):
                place = layer * directions + direction
                own = weights[place * each : (place + 1) * each]
                inner, hidden, *rest = own
                biases, projection = (rest[:2], rest[2:]) if has_biases else ((None, None), rest)
                step = cell(hidden, biases[1], projection[0] if projection else None)
                start = tuple(state[place] for state in first)
                result, state = run(F.linear(x, inner, biases[0]), start, step, backwards=direction == 1)
                made.append(result)
                last.append(state)
            x = torch.cat(made, -1) if len(made) > 1 else made[0]
        ends = tuple(torch.stack([state[i] for state in last]) for i in range(states))
        if not whole:
            return x.squeeze(1), *(end.squeeze(1) for end in ends)
        return (x.transpose(0, 1) if batch_first else x), *ends

    return meaning


def _rule(cell: Callable[..., Cell], states: int) -> Rule:
    meaning = _layers(cell, states)

    def rule(b: Builder, x: Operand, first: Any, *options: Any) -> Result:
        steps = x.shape[1] if x.rank == 3 and options[-1] is True and len(options) == 7 else x.shape[0]
        check_steps(steps)
        return written(b, meaning, x, [first] if isinstance(first, Operand) else first, *options)

    return rule


def check_steps(steps: int) -> None:
    if steps > LONGEST:
        raise Unsupported(f"its {steps} steps are more than the {LONGEST} that are written out")


RECURRENT: dict[OpOverload, Rule] = {
    aten.lstm.input: _rule(_lstm_cell, 2),
    aten.gru.input: _rule(_gru_cell, 1),
    aten.rnn_tanh.input: _rule(_plain_cell(torch.tanh), 1),
    aten.rnn_relu.input: _rule(_plain_cell(torch.relu), 1),
}

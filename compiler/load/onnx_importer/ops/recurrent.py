"""LSTM, GRU and RNN, written out step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lvc.compiler.load.normalise.recurrent import Cell, State, check_steps, run
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value

Function = Callable[[Tensor], Tensor]

_FUNCTIONS: dict[str, Function] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "Softplus": F.softplus,
    "Softsign": lambda x: x / (1 + x.abs()),
}
_DEFAULT = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@converts("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> list[Value]:
    """X (steps, batch, features), W and R with all gates of each direction; lengths, where given, mask later steps."""
    direction = call.attribute("direction", "forward")
    if direction not in _DIRECTIONS:
        raise ValueError(f"direction cannot be '{direction}'")
    backwards = _DIRECTIONS[direction]
    if call.attribute("hidden_size") not in (None, call.shape(2)[2]):
        raise ValueError(f"hidden_size is {call.attribute('hidden_size')}, and the weights' is {call.shape(2)[2]}")
    names = _DEFAULT[call.op]
    listed = call.attribute("activations", ["Tanh", "Tanh"] if call.op == "RNN" else None) or names * len(backwards)
    given = [str(name) for name in listed][: len(names) * len(backwards)]
    unknown = sorted({name for name in given if name not in _FUNCTIONS})
    if unknown or any(call.attribute(name) for name in ("activation_alpha", "activation_beta")):
        raise Unsupported(f"has activations with parameters or unknown ones: {', '.join(given)}")
    by_batch = bool(call.attribute("layout", 0))
    steps = call.shape()[1 if by_batch else 0]
    check_steps(steps)
    lengths = _lengths(call, steps)
    if lengths is not None and any(backwards):
        raise Unsupported("reads sequences of different lengths backwards")
    options = _Options(
        op=call.op,
        functions=[[_FUNCTIONS[name] for name in given[i:][: len(names)]] for i in range(0, len(given), len(names))],
        backwards=backwards,
        clip=call.attribute("clip"),
        coupled=bool(call.attribute("input_forget", 0)),
        linear_before_reset=bool(call.attribute("linear_before_reset", 0)),
        by_batch=by_batch,
    )
    operands = [call.get(index) for index in (3, 5, 6, 7)]
    return list(by_meaning(call, options.run, call[0], call[1], call[2], *operands, lengths))


def _lengths(call: Call, steps: int) -> Value | None:
    lengths = call.get(4)
    if isinstance(lengths, Constant) and bool((lengths.tensor == steps).all()):
        return None
    return lengths


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The attributes of a recurrent node, and what they mean."""

    op: str
    functions: Sequence[Sequence[Function]]
    backwards: Sequence[bool]
    clip: float | None
    coupled: bool
    linear_before_reset: bool
    by_batch: bool

    def run(  # noqa: PLR0917 - a composite takes operands by place
        self,
        x: Tensor,
        weight: Tensor,
        hidden: Tensor,
        bias: Tensor | None,
        first: Tensor | None,
        cell: Tensor | None,
        peepholes: Tensor | None,
        lengths: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Y (steps, directions, batch, hidden), Y_h and for LSTM Y_c."""
        if self.by_batch:
            x = x.transpose(0, 1)
            first = None if first is None else first.transpose(0, 1)
            cell = None if cell is None else cell.transpose(0, 1)
        size, gates = hidden.shape[2], _GATES[self.op]
        zero = x.new_zeros((x.shape[1], size))
        results, last = [], []
        for i, backwards in enumerate(self.backwards):
            inner, outer = (None, None) if bias is None else (bias[i, : gates * size], bias[i, gates * size :])
            step = self.cell(self.functions[i], hidden[i], outer, None if peepholes is None else peepholes[i])
            start = [zero if first is None else first[i]]
            start += [zero if cell is None else cell[i]] if self.op == "LSTM" else []
            inputs = F.linear(x, weight[i], inner)
            if lengths is None:
                made, ends = run(inputs, tuple(start), step, backwards=backwards)
            else:
                made, ends = _masked(inputs, start, step, lengths)
            results.append(made)
            last.append(ends)
        whole = torch.stack(results, 1)
        ends_ = [torch.stack([state[k] for state in last]) for k in range(len(last[0]))]
        if self.by_batch:
            return whole.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends_)
        return whole, *ends_

    def limited(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def cell(
        self, functions: Sequence[Function], weight: Tensor, bias: Tensor | None, peepholes: Tensor | None
    ) -> Cell:
        if self.op == "LSTM":
            return self.lstm(functions, weight, bias, peepholes)
        if self.op == "GRU":
            return self.gru(functions, weight, bias)
        (f,) = functions
        return lambda given, state: (f(self.limited(given + F.linear(state[0], weight, bias))),)

    def lstm(
        self, functions: Sequence[Function], weight: Tensor, bias: Tensor | None, peepholes: Tensor | None
    ) -> Cell:
        """Gates in ONNX's order: input, output, forget, cell."""
        f, g, h = functions

        def looked(gate: int, cell: Tensor) -> Tensor | float:
            return 0.0 if peepholes is None else peepholes.chunk(3)[gate] * cell

        def step(given: Tensor, state: State) -> State:
            hidden, cell = state
            i, o, forget, c = (given + F.linear(hidden, weight, bias)).chunk(4, -1)
            i, forget = i + looked(0, cell), forget + looked(2, cell)
            i, forget = f(self.limited(i)), f(self.limited(forget))
            forget = 1 - i if self.coupled else forget
            cell = forget * cell + i * g(self.limited(c))
            o = f(self.limited(o + looked(1, cell)))
            return o * h(cell), cell

        return step

    def gru(self, functions: Sequence[Function], weight: Tensor, bias: Tensor | None) -> Cell:
        """Gates in ONNX's order: update, reset, hidden."""
        f, g = functions
        size = weight.shape[1]
        outer = [None] * 3 if bias is None else list(bias.chunk(3))

        def step(given: Tensor, state: State) -> State:
            (hidden,) = state
            z, r, n = given.chunk(3, -1)
            z = f(self.limited(z + F.linear(hidden, weight[:size], outer[0])))
            r = f(self.limited(r + F.linear(hidden, weight[size : 2 * size], outer[1])))
            if self.linear_before_reset:
                n = n + r * F.linear(hidden, weight[2 * size :], outer[2])
            else:
                n = n + F.linear(r * hidden, weight[2 * size :], outer[2])
            new = g(self.limited(n))
            return ((1 - z) * new + z * hidden,)

        return step


def _masked(inputs: Tensor, state: Sequence[Tensor], cell: Cell, lengths: Tensor) -> tuple[Tensor, State]:
    """Steps behind a sequence's length give zeros and leave its state."""
    results, states = [], tuple(state)
    for step in range(len(inputs)):
        inside = (lengths > step).unsqueeze(1)
        after = cell(inputs[step], states)
        states = tuple(torch.where(inside, new, old) for new, old in zip(after, states, strict=True))
        results.append(torch.where(inside, after[0], torch.zeros_like(after[0])))
    return torch.stack(results), states

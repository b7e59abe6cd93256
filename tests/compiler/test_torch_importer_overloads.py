"""Every overload that the PyTorch importer takes, with all of its arguments, against ATen itself."""

from __future__ import annotations

import operator
import random
from typing import Any

import pytest
import torch
from drawing import Draw
from hypothesis import given, settings
from hypothesis import strategies as st
from overloads import OVERLOADS, as_dispatched
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.ir.verify import verify
from lvc.compiler.load.normalise.rebuild import rebuild
from lvc.compiler.load.normalise.rules import RULES
from lvc.compiler.load.normalise.trace import Stored, Trace
from lvc.compiler.pipeline.observers import relative_difference

CLAIMED = [*dict.fromkeys([*RULES, *(op for op in OPS if op.namespace == "aten")])]
UNWRITTEN = (torch.ops.aten.new_empty.default, torch.ops.aten.empty_like.default)
"""Their elements are whatever lay in memory."""

BOUNDS = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Largest relative difference by the type of the first tensor; some rules round a few times more than ATen."""


class Calls:
    """Drawn calls as one trace, each on inputs of its own."""

    def __init__(self) -> None:
        self.trace = Trace(Graph(), {}, {}, ())
        self.inputs: list[Tensor] = []
        self.results: list[Node] = []

    def add(self, overload: OpOverload, args: Any, kwargs: Any, wanted: list[Tensor | None], draw: Draw) -> None:
        """Append a call; its first tensor is an input, each other one an input, a weight or a constant."""
        known = overload is torch.ops.aten.index.Tensor
        count = len(self.inputs)

        def place(argument: Any) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            if len(self.inputs) == count:
                return self._input(argument)
            kind = "constant" if known else draw.pick("input", "input", "weight", "constant")
            return self._input(argument) if kind == "input" else self._stored(argument, kind == "weight")

        args, kwargs = map_aggregate((args, kwargs), place)  # type: ignore[arg-type]
        call = self.trace.graph.call_function(overload, args, kwargs)
        if len(overload._schema.returns) == 1 and overload._schema.returns[0].type.kind() == "TensorType":
            self.results.append(call)
            return
        for i, part in enumerate(wanted):
            if part is not None:
                self.results.append(self.trace.graph.call_function(operator.getitem, (call, i)))

    def _input(self, value: Tensor) -> Node:
        node = self.trace.graph.placeholder(f"x{len(self.inputs)}")
        self.trace.inputs[node] = (node.name, TensorSpec.of(value))
        self.inputs.append(value)
        return node

    def _stored(self, value: Tensor, trainable: bool) -> Node:
        node = self.trace.graph.placeholder(f"w{len(self.trace.stored)}")
        self.trace.stored[node] = Stored(node.name, value, trainable and value.is_floating_point())
        return node

    def extend(self, other: Calls) -> None:
        """Take over the calls of another trace that is finished."""
        taken: dict[Node, Node] = {}
        inputs = iter(other.inputs)
        for node in other.trace.graph.nodes:
            if node.op == "output":
                self.results += [taken[part] for part in other.results]
            elif node in other.trace.inputs:
                taken[node] = self._input(next(inputs))
            elif node in other.trace.stored:
                kept = other.trace.stored[node]
                taken[node] = self._stored(kept.value, kept.trainable)
            else:
                taken[node] = self.trace.graph.node_copy(node, lambda operand: taken[operand])

    def model(self) -> Model:
        self.trace.graph.output(tuple(self.results))
        self.trace.output_names = tuple(f"y{i}" for i in range(len(self.results)))
        return Model(rebuild(self.trace), name="calls", output_names=self.trace.output_names)


def eager(overload: OpOverload, args: Any, kwargs: Any) -> list[Tensor]:
    args, kwargs = map_aggregate((args, kwargs), lambda x: x.clone() if isinstance(x, Tensor) else x)
    torch.manual_seed(0)
    result = overload(*args, **kwargs)
    return [result] if isinstance(result, Tensor) else list(result)


def known_results(overload: OpOverload, results: list[Tensor]) -> list[Tensor | None]:
    """The results that a rule may be asked for; those that only training reads are left out."""
    name = overload._schema.name
    first_only = "native_" in name or "flash" in name or "pool3d_with_indices" in name or "adaptive_max" in name
    return [result if i == 0 or not first_only else None for i, result in enumerate(results)]


def draws_random_numbers(arguments: dict[str, Any]) -> bool:
    return bool(arguments.get("train") and arguments.get("p"))


def test_every_overload_that_is_claimed_is_drawn() -> None:
    assert [str(overload) for overload in CLAIMED if overload not in OVERLOADS] == []


@pytest.mark.parametrize("overload", OVERLOADS, ids=str)
def test_overload_is_what_aten_computes(overload: OpOverload) -> None:
    accepted: list[bool] = []

    @settings(max_examples=8)
    @given(st.randoms(use_true_random=False))
    def holds(source: random.Random) -> None:
        accepted.append(check(overload, Draw(source)))

    holds()
    assert any(accepted)


def check(overload: OpOverload, draw: Draw) -> bool:
    """Whether a drawn call is taken; then it must compute what ATen does, in the same type."""
    arguments = OVERLOADS[overload](draw)
    args, kwargs = as_dispatched(overload, arguments)
    try:
        results = known_results(overload, eager(overload, args, kwargs))
    except (RuntimeError, IndexError):  # ATen itself does not take it
        return False
    calls = Calls()
    calls.add(overload, args, kwargs, results, draw)
    try:
        model = calls.model()
    except CompileError as refusal:
        if "lvc cannot express" not in refusal.what:
            raise
        return False
    assert not draws_random_numbers(arguments)
    verify(model)
    wanted = [result for result in results if result is not None]
    for ours, theirs in zip(model(*calls.inputs), wanted, strict=True):
        assert str(ours.dtype) == str(theirs.numpy().dtype), arguments
        assert ours.shape == tuple(theirs.shape), arguments
        if overload not in UNWRITTEN:
            double = all(x.dtype is torch.float64 for x in calls.inputs if x.is_floating_point())
            bound = BOUNDS[torch.float64 if double and theirs.dtype is torch.float64 else torch.float32]
            assert relative_difference(ours, theirs.numpy()) <= bound, (arguments, ours, theirs)
    return True

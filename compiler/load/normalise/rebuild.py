"""Rebuilds a traced graph, call by call, in the dialect."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.graph import erase_dead
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.load.normalise.aliasing import is_write, view_parents
from lvc.compiler.load.normalise.arithmetic import cast
from lvc.compiler.load.normalise.builder import (
    Builder,
    Operand,
    Result,
    Rule,
    Unsupported,
    call_on_meta,
    evaluate,
    operands_of,
    specs_only,
)
from lvc.compiler.load.normalise.complex_numbers import Pair, is_complex, spell_complex
from lvc.compiler.load.normalise.creation import CONSTANT_ONLY
from lvc.compiler.load.normalise.movement import expand
from lvc.compiler.load.normalise.refusal import depends_on_data, unknown_operators
from lvc.compiler.load.normalise.rules import CHECKS, functional_twin, rule_of
from lvc.compiler.load.normalise.trace import Trace, substitute
from lvc.compiler.load.normalise.views import INVERSES
from lvc.compiler.load.outputs import changes_state

_TELLS_A_VALUE = (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default)


def rebuild(trace: Trace) -> GraphModule:
    """Write a trace in the dialect; one `CompileError` lists every operator that has no spelling there."""
    rebuilt = _Rebuild(trace)
    for node in trace.graph.nodes:
        rebuilt.visit(node)
    rebuilt.raise_refused()
    module = rebuilt.b.module
    erase_dead(module)
    module.recompile()
    return module


class _Rebuild:
    """The value of every traced node, kept right while views of it are written.

    A view knows its parent, and the first of such a chain is the root. Each write through any view gives the root a
    new version; a view made of an older version is made again when it is read.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.b = Builder()
        self.results: dict[Node, Result] = {}
        self.parent = view_parents(trace)
        self.version: dict[Node, int] = {}
        self.made_at: dict[Node, int] = {}
        self.refused: dict[str, list[str]] = {}

    def visit(self, node: Node) -> None:
        if node.op == "output":
            (parts,), _ = substitute(node, self.read)
            if any(isinstance(part, Pair) for part in parts):
                help = "return torch.view_as_real(...) of it, or its real and imaginary parts"
                raise CompileError("an output of the model is complex", help=help)
            self.b.output(parts)
        elif node.users or node.op == "placeholder" or _may_write(node):
            self.keep(node, self.make(node))

    def make(self, node: Node) -> Result:
        """The result of a node from the present values of its operands."""
        if node in self.trace.inputs:
            return self.b.input(*self.trace.inputs[node])
        if node in self.trace.stored:
            kept = self.trace.stored[node]
            stored = self.b.parameter if kept.trainable else self.b.constant
            if not kept.value.is_complex():
                return stored(kept.value, kept.name)
            parts = ((name, getattr(kept.value.detach(), name).contiguous()) for name in ("real", "imag"))
            return Pair(*(stored(value, f"{kept.name}_{name}") for name, value in parts))
        args, kwargs = substitute(node, self.read)
        self.b.origin, self.b.path = node.meta.get("origin", node.name), node.meta.get("path", "")
        if node.target is operator.getitem:
            return self.part(node, *args)
        assert isinstance(node.target, OpOverload)
        twin = functional_twin(node.target)
        if twin is None:
            return self.spell(node.target, args, kwargs)
        old, written = args[0], self.spell(twin, args, kwargs)
        if isinstance(written, Pair):
            self.write(node.args[0], written)  # type: ignore[arg-type]
            return written
        assert isinstance(written, Operand)
        written = expand(self.b, cast(self.b, written, old.dtype), old.shape)
        if written is not old:
            self.write(node.args[0], written)  # type: ignore[arg-type]
        return written

    def part(self, node: Node, whole: tuple[Operand, ...], index: int) -> Operand:
        """One result of a call of several; a rule leaves out those at the end that have no spelling."""
        if index < len(whole):
            return whole[index]
        call = node.args[0]
        assert isinstance(call, Node)
        assert isinstance(call.target, OpOverload)
        self._note(call.target, f"its result {index} is used")
        return whole[0]

    def spell(self, target: OpOverload, args: Any, kwargs: Any) -> Result:
        """The value of a call, spelled in the dialect; evaluated at once where it is known."""
        if target in CHECKS:
            return ()
        if is_complex(target, args, kwargs):
            return self.spell_complex(target, args, kwargs)
        rule = rule_of(target) or (_as_it_is(target) if target in OPS else None)
        known = all(operand.is_constant for operand in operands_of(args, kwargs))
        if known and target is not counted and (rule or target in CONSTANT_ONLY):
            return evaluate(self.b, target, args, kwargs)
        if rule is None:
            return self.refuse(target, args, kwargs)
        try:
            return rule(self.b, *args, **kwargs)
        except Unsupported as unsupported:
            return self.refuse(target, args, kwargs, str(unsupported))

    def spell_complex(self, target: OpOverload, args: Any, kwargs: Any) -> Result:
        """The value of a call with complex numbers, in pairs; one that cannot be spelled ends the reading."""
        try:
            return spell_complex(self.b, target, args, kwargs)
        except Unsupported as unsupported:
            self._note(target, str(unsupported))
            self.raise_refused()
            raise

    def read(self, node: Node) -> Result:
        """The value of a node as it is now, after every write so far."""
        if self.made_at[node] != self.version.get(self.root(node), 0):
            stale = node.args[0] if is_write(node) else None
            self.keep(node, self.read(stale) if isinstance(stale, Node) else self.make(node))
        return self.results[node]

    def write(self, node: Node, value: Result) -> None:
        """Give a node, and everything that it is a view of, a new value."""
        parent = self.parent.get(node)
        if parent is not None:
            self.write(parent, self.undo(node, parent, value))
        elif node in self.trace.stored:
            raise changes_state(self.trace.stored[node].name)
        else:
            self.version[node] = self.version.get(node, 0) + 1
        self.keep(node, value)

    def undo(self, node: Node, parent: Node, value: Result) -> Result:
        """The value of a view's parent once the view has a new value."""
        if is_write(node):
            return value
        old = self.read(parent)
        if node.target is operator.getitem:
            assert isinstance(old, tuple)
            return tuple(value if i == node.args[1] else part for i, part in enumerate(old))  # type: ignore[misc]
        assert isinstance(node.target, OpOverload)
        inverse = INVERSES.get(node.target)
        try:
            if inverse is None:
                raise Unsupported("a view of this kind is written in place")
            if isinstance(value, Pair):
                raise Unsupported("a view of complex numbers is written in place")
            args, kwargs = substitute(node, self.read)
            return inverse(self.b, old, value, *args[1:], **kwargs)
        except Unsupported as unsupported:
            self._note(node.target, str(unsupported))
            return old

    def keep(self, node: Node, value: Result) -> None:
        self.results[node] = value
        self.made_at[node] = self.version.get(self.root(node), 0)

    def root(self, node: Node) -> Node:
        while node in self.parent:
            node = self.parent[node]
        return node

    def refuse(self, target: OpOverload, args: Any, kwargs: Any, reason: str = "") -> Result:
        """Note an operator without a spelling, and go on with the specs of its results, to list all of them at once."""
        if target in _TELLS_A_VALUE:
            raise depends_on_data(self.b.origin)
        self._note(target, reason)
        try:
            results = call_on_meta(target, *specs_only((args, kwargs)))
        except Exception:
            self.raise_refused()
            raise
        if not isinstance(results, (torch.Tensor, tuple, list)):
            raise depends_on_data(self.b.origin)
        return self.b.opaque(target, results)

    def raise_refused(self) -> None:
        if self.refused:
            raise unknown_operators(self.refused)

    def _note(self, target: OpOverload, reason: str) -> None:
        name = f"{target} ({reason})" if reason else str(target)
        self.refused.setdefault(name, []).append(self.b.origin)


def _may_write(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _as_it_is(target: OpOverload) -> Rule:
    return lambda b, *args, **kwargs: b.call(target, *args, **kwargs)

"""Rules that rewrite a graph, and the one driver that applies them.

A rule looks at one call. It returns None if it does not apply; a sentence if it nearly does, and why the call must stay
as it is; or the node that the call's users shall read from now on: a new one, one that stood there before, or the call
itself once its arguments are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import calls, drop_unread_tensors, erase_left, replace
from lvc.compiler.pipeline.passes import Outcome

Rule = Callable[[GraphModule, Node], Node | str | None]

Rules = Mapping[OpOverload, Sequence[Rule]]
"""The rules for the calls of an operator, in the order in which they are asked; the first that gives a node ends it."""


def rewrite(
    module: GraphModule, rules: Rules, outcome: Outcome, *, otherwise: Sequence[Rule] = (), once: bool = False
) -> None:
    """Apply rules to the calls in graph order, until none applies: one rewrite can make room for another.

    ``otherwise`` are the rules for operators that ``rules`` lack. With ``once`` each call is looked at one time, as in
    a translation from which nothing leads back. What a rewrite leaves unread is erased. ``outcome`` gets what changed,
    and what was refused in the last sweep. `CompileError` if the rules turn in a circle.
    """
    before = len(outcome.skipped)
    for _ in range(1 if once else 2 + len(module.graph.nodes)):
        del outcome.skipped[before:]
        last = _sweep(module, rules, otherwise, outcome)
        if last is None or once:
            drop_unread_tensors(module)
            return
    raise CompileError(
        f"rules rewrite '{last}' for ever", help="one of them undoes what another does; let one of the two return None"
    )


def _sweep(module: GraphModule, rules: Rules, otherwise: Sequence[Rule], outcome: Outcome) -> str | None:
    """Look at every call once; return the name of the last that changed."""
    last = None
    for node in calls(module.graph):
        assert isinstance(node.target, OpOverload)
        if node._erased:
            continue
        for rule in rules.get(node.target, otherwise):
            operands, found = node.all_input_nodes, rule(module, node)
            if isinstance(found, str):
                outcome.skip(node, found)
            elif found is not None:
                last = node.name
                if last not in outcome.changed:
                    outcome.change(last)
                if found is not node:
                    replace(node, found)
                erase_left(module, [operand for operand in operands if operand is not found])
                break
    return last

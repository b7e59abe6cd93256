"""The rules of `eliminate-identities`, by what the operators do.

A rule looks at one call and returns None if it does not apply, a sentence if it nearly does and why not, or the node
that the call's users shall read from now on: an operand, or the call itself once its arguments are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

Rule = Callable[[GraphModule, Node], Node | str | None]
Rules = Mapping[OpOverload, tuple[Rule, ...]]

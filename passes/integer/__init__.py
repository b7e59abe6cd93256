"""The rules of `lower-to-integer`, by what the operators do.

Every rounded activation is ``dequantise(quantise(x))`` at first. The rules walk forward: layers, averages and products
of dequantised operands become integer sums that are rescaled (`layers`); what moves elements moves the integers
instead (`movement`); functions of sums get their exact meaning (`functions`); and a quantise takes what is before it
into integers if it can (`requantisation`). A rule returns None if it does not apply, a sentence if the call must stay
as it is and why, or the node that the call's users shall read from now on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

Rule = Callable[[GraphModule, Node], Node | str | None]
Rules = Mapping[OpOverload, Rule]

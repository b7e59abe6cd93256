"""A traced model before it is normalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from lvc.compiler.ir.spec import TensorSpec


@dataclass(frozen=True)
class Stored:
    """A tensor that the traced model keeps, under its name there."""

    name: str
    value: torch.Tensor
    trainable: bool


@dataclass
class Trace:
    """Calls of ATen operators as they were traced: synonyms, views and in-place writes included.

    Every placeholder of ``graph`` is either an input, with name and spec, or a stored tensor. The output node holds
    a flat tuple of nodes, named by ``output_names``. A call has ``meta["origin"]`` and ``meta["path"]``: the path of
    the module that it ran in.
    """

    graph: Graph
    inputs: dict[Node, tuple[str, TensorSpec]]
    stored: dict[Node, Stored]
    output_names: tuple[str, ...]


def substitute(node: Node, value: Callable[[Node], Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a traced call with a value in the place of each node."""
    args, kwargs = map_arg((node.args, node.kwargs), cast("Any", value))
    return list(cast("Any", args)), dict(cast("Any", kwargs))

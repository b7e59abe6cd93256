"""Half precision is computed in float32: whatever of a trace is float16 or bfloat16 is widened, and a note says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.fx.node import map_aggregate

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.normalise.builder import identity
from lvc.compiler.load.normalise.trace import Trace

HALVES = (torch.float16, torch.bfloat16)


def widen(trace: Trace) -> str:
    """Widen a trace whose inputs or stored tensors are in half precision; what was done, or an empty text."""
    inputs = {node: given for node, given in trace.inputs.items() if given[1].dtype in HALVES}
    stored = {node: kept for node, kept in trace.stored.items() if kept.value.dtype in HALVES}
    types = _names([*(given.dtype for _, given in inputs.values()), *(kept.value.dtype for kept in stored.values())])
    if not types:
        return ""
    trace.inputs |= {node: (name, TensorSpec(given.shape, torch.float32)) for node, (name, given) in inputs.items()}
    wide: dict[object, torch.Tensor] = {}
    for node, kept in stored.items():
        value = wide.setdefault(identity(kept.value), kept.value.float())
        trace.stored[node] = replace(kept, value=value)
    for node in trace.graph.nodes:
        node.args, node.kwargs = widened((node.args, node.kwargs))
    parts = [
        ", ".join(f"'{name}'" for name, _ in inputs.values()) + " of its signature" if inputs else "",
        f"{len(stored)} stored tensor(s)" if stored else "",
    ]
    return f"{types} was widened to float32: {'; '.join(filter(None, parts))}"


def widened(arguments: Any) -> Any:
    """Arguments of a call with float32 where they ask for half precision."""
    return map_aggregate(arguments, lambda x: torch.float32 if isinstance(x, torch.dtype) and x in HALVES else x)


def is_half(module: torch.nn.Module) -> bool:
    return any(value.dtype in HALVES for value in (*module.parameters(), *module.buffers()))


def _names(types: Iterable[torch.dtype]) -> str:
    return " and ".join(sorted({str(dtype).removeprefix("torch.") for dtype in types}))

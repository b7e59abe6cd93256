"""What the source of a model computes by itself, before anything was normalised: eager PyTorch, or a trace as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter
from torch.utils._python_dispatch import TorchDispatchMode

from lvc.compiler.ir.model import Reference
from lvc.compiler.load.normalise.builder import call_on_cpu
from lvc.compiler.load.normalise.rules import CHECKS
from lvc.compiler.load.normalise.trace import Trace
from lvc.compiler.load.outputs import name_outputs
from lvc.compiler.load.settled import copied
from lvc.compiler.load.widening import is_half, widened


def eager_reference(module: torch.nn.Module) -> Reference:
    """The module itself, in evaluation mode. It shares its tensors, and no other state, with the one given.

    One in half precision is computed in float32, as it is in the model.
    """
    half = is_half(module)
    twin = _twin(module, share_tensors=not half)
    if half and twin is not module:
        twin.float()
    mode = _Wide if half else contextlib.nullcontext

    def run(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        with torch.no_grad(), mode():
            return _arrays([tensor for _, tensor in name_outputs(twin(*_tensors(inputs)))])

    return Reference("eager PyTorch in float32" if half else "eager PyTorch", run)


def trace_reference(trace: Trace, name: str) -> Reference:
    """The calls of a trace, one by one, by ATen."""
    places = trace.graph.find_nodes(op="placeholder")

    def run(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        given = dict(zip(trace.inputs, _tensors(inputs), strict=True))
        values = [given[node] if node in given else trace.stored[node].value for node in places]
        with torch.no_grad():
            return _arrays(_Calls(GraphModule({}, trace.graph)).run(*values))

    return Reference(name, run)


class _Calls(Interpreter):
    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in CHECKS:
            return None
        return call_on_cpu(target, args, kwargs) if isinstance(target, OpOverload) else target(*args, **kwargs)


class _Wide(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets code that asks for half precision have float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = widened((args, kwargs or {}))
        return func(*args, **kwargs)


def _twin(module: torch.nn.Module, *, share_tensors: bool) -> torch.nn.Module:
    """A copy, so that what tracing leaves behind in a module is not seen; or itself."""
    try:
        return copied(module, share_tensors=share_tensors)
    except Exception:  # a module may hold what cannot be copied
        return module


def _tensors(arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Copies, since a model may write into its inputs."""
    return [torch.from_numpy(np.array(array)) for array in arrays]


def _arrays(tensors: Sequence[torch.Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(tensor.detach().contiguous().numpy()) for tensor in tensors)

"""The PyTorch importer: a module becomes a model in the dialect."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model, Reference
from lvc.compiler.load.detectors.table import taking_a_batch
from lvc.compiler.load.lengths.settle import settle_lengths
from lvc.compiler.load.normalise.rebuild import rebuild
from lvc.compiler.load.normalise.trace import Trace
from lvc.compiler.load.references import eager_reference
from lvc.compiler.load.scripted import plain
from lvc.compiler.load.settled import copied, initialise, settle
from lvc.compiler.load.tracing import trace
from lvc.compiler.load.widening import widen


def from_module(module: torch.nn.Module, examples: Sequence[torch.Tensor], *, name: str, source: str = "") -> Model:
    """Trace a copy of a module, in evaluation mode, on example inputs.

    Inputs are named after the arguments of ``forward``; outputs after the keys or fields of what it returns. The
    module itself, its mode included, stays as it is, and the model shares no tensor with it.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"a {type(module).__name__} is not a torch.nn.Module")
    return from_own_module(copied(module), examples, name=name, source=source)


def from_own_module(module: torch.nn.Module, examples: Sequence[torch.Tensor], *, name: str, source: str = "") -> Model:
    """Trace a module that nobody else holds: the model takes over its tensors."""
    module = taking_a_batch(plain(module)).cpu().eval()
    initialise(module, examples)
    module.requires_grad_(False)
    reference = eager_reference(module)
    settle(module)
    traced = trace(module, examples)
    note = widen(traced)
    model = from_trace(traced, name=name, source=source, reference=reference)
    model.notes += filter(None, [note])
    return model


def from_trace(traced: Trace, *, name: str, source: str, reference: Reference) -> Model:
    module = rebuild(traced)
    names, counts = settle_lengths(module, traced.output_names)
    module.recompile()
    return Model(module, name=name, output_names=names, source=source, reference=reference, counts=counts)

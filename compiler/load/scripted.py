"""TorchScript, from a factory or from a file: its interpreter runs under `torch.export` as any other forward does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence

import torch

from lvc.compiler.ir.graph import store


class Scripted(torch.nn.Module):
    """A TorchScript module with its tensors as parameters and buffers of its own, which is how one can be traced."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        script = script.cpu().eval()
        self.script = [script]  # in a list it is no submodule
        for name, value in script.named_parameters():
            store(self, name, value, trainable=True)
        for name, buffer in script.named_buffers():
            store(self, name, buffer, trainable=False)

    def forward(self, *inputs: torch.Tensor) -> object:
        script = self.script[0]
        kept = _tensors(script)
        try:
            _put(script, _tensors(self))
            return script._c._get_method("forward")(*inputs)  # past Python's hooks, which know no TorchScript
        finally:
            _put(script, kept)


def _tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _put(module: torch.nn.Module, tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
    for name, value in tensors:
        *path, leaf = name.split(".")
        setattr(functools.reduce(getattr, path, module), leaf, value)


def forward_signature(module: torch.nn.Module) -> inspect.Signature:
    """What ``forward`` takes; TorchScript keeps that in a schema."""
    if not isinstance(module, Scripted):
        return inspect.signature(module.forward)
    arguments = module.script[0].forward.schema.arguments[1:]  # type: ignore[attr-defined]
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(a.name, kind, default=a.default_value if a.has_default_value() else empty)
            for a in arguments
        ]
    )


def plain(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, or one that can be traced in place of TorchScript."""
    return Scripted(module) if isinstance(module, torch.jit.ScriptModule) else module

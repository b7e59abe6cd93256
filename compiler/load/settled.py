"""Modules whose weights come about only in a run: parametrised ones, and lazy ones, settled once while they load."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence

import torch
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_REMOVERS: dict[type, Callable[[torch.nn.Module, str], torch.nn.Module]] = {
    WeightNorm: remove_weight_norm,
    SpectralNorm: remove_spectral_norm,
}


def copied(module: torch.nn.Module, *, share_tensors: bool = False) -> torch.nn.Module:
    """A copy of a module; ``share_tensors`` lets both hold the same parameters and buffers."""
    memo: dict[int, object] = {}
    for layer in module.modules():
        computed = (value for value in vars(layer).values() if isinstance(value, torch.Tensor) and not value.is_leaf)
        memo |= {id(value): value.detach().clone() for value in computed}
    if share_tensors:
        memo |= {id(value): value for value in itertools.chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, memo)


def initialise(module: torch.nn.Module, examples: Sequence[torch.Tensor]) -> None:
    """Run a module that has lazy layers, which take their sizes from what they are given."""
    if any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        with torch.no_grad():
            module(*[example.clone() for example in examples])


def settle(module: torch.nn.Module) -> None:
    """Compute parametrised weights, constant in evaluation mode, and keep them in place of what they come from."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            _unparametrise(layer)
        for hook in list(layer._forward_pre_hooks.values()):
            if isinstance(hook, (WeightNorm, SpectralNorm)):
                _REMOVERS[type(hook)](layer, hook.name)


def _unparametrise(layer: torch.nn.Module) -> None:
    """Put values in place of parametrisations; PyTorch's own function for it changes copies of the layer as well."""
    names = list(layer.parametrizations)  # type: ignore[arg-type]
    with torch.no_grad():
        values = {name: getattr(layer, name).clone() for name in names}
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    for name, value in values.items():
        layer.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))

"""The one registration of ``lvc::`` with PyTorch: an operator is its schema and the PyTorch code as its meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.library import Library

_LIBRARY: Any = Library("lvc", "FRAGMENT")  # type: ignore[no-untyped-call]
_MODULES: dict[OpOverload, str] = {}


def operator(schema: str, *, differentiable: bool = False) -> Callable[[Callable[..., torch.Tensor]], OpOverload]:
    """Register a function under ``lvc::`` with a schema; the operator stands in its place.

    A differentiable one has the gradient of the code that is its meaning; others have none.
    """

    def register(meaning: Callable[..., torch.Tensor]) -> OpOverload:
        name = schema.partition("(")[0]
        _LIBRARY.define(schema)
        _LIBRARY.impl(name, meaning, "CompositeImplicitAutograd" if differentiable else "CompositeExplicitAutograd")
        overload: OpOverload = getattr(torch.ops.lvc, name).default
        _MODULES[overload] = meaning.__module__
        return overload

    return register


def operators_of(module: str) -> tuple[OpOverload, ...]:
    """The operators whose meaning stands in a module, in the order in which they stand there."""
    return tuple(overload for overload, home in _MODULES.items() if home == module)

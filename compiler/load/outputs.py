"""The names of a model's outputs, from the structure of what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lvc.compiler.errors import CompileError


def flatten_outputs(result: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a nested result with their names: keys, fields and positions joined by ``_``."""
    if isinstance(result, torch.Tensor):
        yield name or "output", result
        return
    for key, part in _parts(result, "" if name else "output"):
        if part is not None:
            yield from flatten_outputs(part, "_".join(filter(None, (name, key))))


def _parts(result: Any, plain: str) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Mapping):
        return ((str(key), part) for key, part in result.items())
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return ((field.name, getattr(result, field.name)) for field in dataclasses.fields(result))
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return zip(result._fields, result, strict=True)
    if isinstance(result, (tuple, list)):
        numbered = len(result) > 1
        return (("_".join(filter(None, (plain, str(i) * numbered))), part) for i, part in enumerate(result))
    raise CompileError(
        f"the model returns a {type(result).__name__}",
        why="outputs must be tensors, alone or in tuples, lists, dicts and dataclasses",
    )


def changes_state(name: str) -> CompileError:
    return CompileError(
        f"the model writes to its own '{name}'",
        why="a compiled model keeps no state from one call to the next",
    )

"""The names of a model's outputs, from the structure of what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lvc.compiler.errors import CompileError


def name_outputs(result: Any) -> list[tuple[str, torch.Tensor]]:
    """Name the tensors of a nested result by keys, fields and positions: ``out``, ``boxes_0``, or else ``output``.

    Parts that are None are left out; `CompileError` for a part of any other type.
    """
    named: dict[str, torch.Tensor] = {}
    for path, tensor in _leaves(result, ()):
        name = "_".join(path if path and not path[0].isdigit() else ("output", *path))
        while name in named:
            name += "_"
        named[name] = tensor
    return list(named.items())


def _leaves(result: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(result, torch.Tensor):
        yield path, result
        return
    for key, part in _parts(result):
        if part is not None:
            yield from _leaves(part, (*path, key) if key else path)


def _parts(result: Any) -> list[tuple[str, Any]]:
    """The parts of a container with their keys; the only part of a list or tuple needs none."""
    if isinstance(result, Mapping):
        return [(str(key), part) for key, part in result.items()]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return list(zip(result._fields, result, strict=True))
    if isinstance(result, (tuple, list)):
        return [(str(i) if len(result) > 1 else "", part) for i, part in enumerate(result)]
    raise CompileError(
        f"the model returns a value of type {type(result).__name__}",
        why="outputs must be tensors, alone or in tuples, lists, dicts and dataclasses",
    )


def changes_state(name: str) -> CompileError:
    """The error of a model that keeps something from one call to the next."""
    return CompileError(
        f"the model writes to its own '{name}'",
        why="a compiled model keeps no state from one call to the next",
    )

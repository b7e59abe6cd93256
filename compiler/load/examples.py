"""The example inputs that a module from a factory is traced on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.load.scripted import forward_signature


def make_examples(module: torch.nn.Module, shapes: Mapping[str, Sequence[int]], size: int) -> list[torch.Tensor]:
    """Make zeros of the given shapes; a module of one input without a shape gets one image of that size.

    The channels are those of the first convolution; `UsageError` if an input has no shape and is not the only one.
    """
    arguments = _arguments(module)
    shapes = _named(shapes, arguments)
    wanted = _wanted(shapes, arguments)
    missing = [name for name in wanted if name not in shapes]
    if missing and len(wanted) > 1:
        raise UsageError(
            f"the shape of input{'s' * (len(missing) > 1)} {', '.join(missing)} is not known",
            help=" ".join(f"--shape {name}=1x3x224x224" for name in missing),
        )
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    image = (1, _channels(module), size, size)
    return [torch.zeros(tuple(shapes.get(name, image)), dtype=dtype) for name in wanted]


def check_examples(given: Sequence[object]) -> list[torch.Tensor]:
    """The example inputs that a caller gave, one by one or in one tuple; `UsageError` for what is no tensor."""
    first = given[0] if len(given) == 1 else None
    examples = list(first if isinstance(first, (tuple, list)) else given)
    for example in examples:
        if not isinstance(example, torch.Tensor):
            raise UsageError(f"an example input is a tensor, not a {type(example).__name__}")
    return examples


def _arguments(module: torch.nn.Module) -> dict[str, bool]:
    """Names of the arguments of ``forward``, each with whether it may be left out."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = forward_signature(module).parameters.values()
    found = {p.name: p.default is not p.empty for p in parameters if p.kind in positional}
    return found or {"input": False}


def _named(shapes: Mapping[str, Sequence[int]], arguments: Mapping[str, bool]) -> dict[str, Sequence[int]]:
    """Shapes under the names of arguments; the key ``input``, or none, stands for the only one that is needed."""
    needed = [name for name, optional in arguments.items() if not optional] or list(arguments)[:1]
    named = {}
    for key, shape in shapes.items():
        is_only = key in ("", "input") and key not in arguments and len(needed) == 1
        name = needed[0] if is_only else key
        if name not in arguments:
            raise UsageError(
                f"--shape: the model has no input '{key}'" if key else "--shape: the model has several inputs",
                help=f"its inputs are: {', '.join(arguments)}",
            )
        named[name] = shape
    return named


def _wanted(shapes: Mapping[str, Sequence[int]], arguments: Mapping[str, bool]) -> list[str]:
    """The arguments to pass: all that are needed, and those up to the last that has a shape."""
    names = list(arguments)
    last = max((i for i, name in enumerate(names) if not arguments[name] or name in shapes), default=0)
    return names[: last + 1]


def _channels(module: torch.nn.Module) -> int:
    layers = (layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    first = next(layers, None)
    return first.in_channels if first is not None else 3

"""What a user can do about a model whose forward cannot be traced."""

from __future__ import annotations

import inspect
import re

import torch

from lvc.compiler.load.scripted import forward_signature

WRAP = "write a factory that wraps the model in a module whose forward takes tensors, one argument each"
_NO_TENSOR = re.compile(r"\b(list|dict|tuple|sequence|mapping|iterable)\b", re.IGNORECASE)
_UNFIT = ("must be tuple of Tensors", "values to unpack", "too many indices", "object has no attribute", "not iterable")
_SIZES = ("size", "shape", "channel", "dim", "mat1", "broadcast", "smaller than", "out of range")


def advice(reason: str, module: torch.nn.Module) -> str:
    """A help line for the reason of an error that was raised while a module was traced."""
    if "PackedParams" in reason or any(".quantized" in type(layer).__module__ for layer in module.modules()):
        return "the model is quantised by PyTorch's own layers: load it as it was before, and quantise with -p int8"
    if "numpy" in reason.lower():
        return "write this line with PyTorch's operators, or move it out of forward: only they can be compiled"
    if takes_containers(module) or any(sign in reason for sign in _UNFIT):
        return f"every input is passed as a tensor; if forward wants something else, {WRAP}"
    if any(sign in reason.lower() for sign in _SIZES):
        return "give the right input size, as --shape input=1x3x224x224"
    return "forward must run in evaluation mode on inputs of these shapes; others are given with --shape"


def takes_containers(module: torch.nn.Module) -> bool:
    """Whether forward says that it takes lists or dicts of tensors."""
    parameters = forward_signature(module).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.annotation is not p.empty]
    return any(_NO_TENSOR.search(inspect.formatannotation(p.annotation)) for p in needed)

"""The importer for files that `torch.jit.save` wrote. Reading one can run code in it, so it takes the user's word."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load.examples import make_examples
from lvc.compiler.load.scripted import Scripted
from lvc.compiler.load.torch_importer import from_own_module
from lvc.compiler.load.zoo import DEFAULT_SIZE


def from_script_file(path: Path, shapes: Mapping[str, Sequence[int]], *, trust: bool) -> Model:
    """Load a network from TorchScript; `UsageError` unless the user trusts the file."""
    if not trust:
        raise UsageError(
            f"'{path}' is TorchScript, which is read only with --trust",
            why="such a file is a program: reading it can run code that is in it",
            help="add --trust if you know who made the file, or export the network with torch.export",
        )
    module = _read(path)
    return from_own_module(module, make_examples(module, shapes, DEFAULT_SIZE), name=path.stem, source=str(path))


def _read(path: Path) -> Scripted:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Scripted(torch.jit.load(path, map_location="cpu"))  # type: ignore[no-untyped-call]
    except Exception as error:  # the reader raises errors of many types
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CompileError("the TorchScript file cannot be read", where=str(path), why=reason) from error

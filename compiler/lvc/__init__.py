"""lvc, the lightweight vision compiler: a trained vision model goes in, a smaller and faster one comes out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Artefact": "lvc.compiler.artefact:Artefact",
    "Loaded": "lvc.compiler.loaded:Loaded",
    "LvcError": "lvc.compiler.errors:LvcError",
    "Model": "lvc.compiler.ir.model:Model",
    "Pipeline": "lvc.compiler.pipeline.pipeline:Pipeline",
    "Target": "lvc.compiler.backend:Target",
    "Workspace": "lvc.compiler.pipeline.workspace:Workspace",
    "compile": "lvc.compiler.driver:compile",
    "from_module": "lvc.compiler.load:from_module",
    "from_onnx": "lvc.compiler.load.onnx_importer:from_onnx",
    "load": "lvc.compiler.loaded:load",
    "load_model": "lvc.compiler.load:load",
    "write_model": "lvc.compiler.writing:write_model",
}

__all__ = [
    "Artefact",
    "Loaded",
    "LvcError",
    "Model",
    "Pipeline",
    "Target",
    "Workspace",
    "compile",
    "from_module",
    "from_onnx",
    "load",
    "load_model",
    "write_model",
]

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Target
    from lvc.compiler.driver import compile
    from lvc.compiler.errors import LvcError
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load import from_module
    from lvc.compiler.load import load as load_model
    from lvc.compiler.load.onnx_importer import from_onnx
    from lvc.compiler.loaded import Loaded, load
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.writing import write_model


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import lvc`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lvc' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("lvc."):
            raise
        raise AttributeError(f"lvc-runtime only runs models: install lvc for 'lvc.{name}'") from error

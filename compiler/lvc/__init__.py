"""lvc, the lightweight vision compiler: a trained vision model goes in, a smaller and faster one comes out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Artefact": "lvc.compiler.artefact",
    "Loaded": "lvc.compiler.loaded",
    "LvcError": "lvc.compiler.errors",
    "Model": "lvc.compiler.ir.model",
    "Pipeline": "lvc.compiler.pipeline.pipeline",
    "Target": "lvc.compiler.backend",
    "Workspace": "lvc.compiler.pipeline.workspace",
    "compile": "lvc.compiler.driver",
    "load": "lvc.compiler.loaded",
}

__all__ = ["Artefact", "Loaded", "LvcError", "Model", "Pipeline", "Target", "Workspace", "compile", "load"]

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Target
    from lvc.compiler.driver import compile
    from lvc.compiler.errors import LvcError
    from lvc.compiler.ir.model import Model
    from lvc.compiler.loaded import Loaded, load
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import lvc`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lvc' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)

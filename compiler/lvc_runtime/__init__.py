"""Runs models that lvc compiled, with NumPy alone: ``lvc_runtime.load("model.lvc")(array)``.

The wheel ``lvc-runtime`` holds this package and, inside it, the modules of lvc that run a model, as they are there.
Where all of lvc is installed its own are used, so that a process has each class once. Afterwards ``import lvc`` works
too.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_MODULES = Path(__file__).parent / "modules"

_found = find_spec("lvc")
if _found is None or _found.origin is None:  # without an origin it is any folder of that name
    sys.path.append(str(_MODULES))

from lvc import Artefact, Loaded, LvcError, __version__, load

__all__ = ["Artefact", "Loaded", "LvcError", "__version__", "load"]

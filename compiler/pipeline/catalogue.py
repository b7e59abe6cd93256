"""What lvc can do, by name, found without importing it.

A pass `fold-batch-norm` is the file `fold_batch_norm.py` of `lvc.passes`; a backend is a folder of `lvc.backends`.
Other packages add theirs through the entry points `lvc.passes` and `lvc.backends`. Adding one is adding a file.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, cast

from lvc.compiler.errors import CompileError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from lvc.compiler.backend import Backend
    from lvc.compiler.pipeline.passes import Pass

FOLDED = "O1,merge-duplicates,O1"
"""What a model goes through before anything else: batch normalisation is folded, and nothing is computed twice."""
SENSITIVITY, TO_INTEGERS, SCALING = "prune-sensitivity", "lower-to-integer", "equalise-weights"
"""The pass that ``lvc sensitivity`` shows, that which computes in integers, and that which scales channels."""

_SIMULATED = f"{FOLDED},{SCALING},smooth-activations,insert-fake-quant"
_CALIBRATE = "calibrate{images=256}"

PRESETS: dict[str, str] = {
    "O0": "",
    "O1": "eliminate-dead,fold-constants,eliminate-identities,fold-batch-norm,eliminate-dead",
    "O2": f"{FOLDED},fuse-operators,allow-winograd",
    "O3": "O2",
    "int8-fast": f"{_SIMULATED},{_CALIBRATE},correct-bias{{images=64}}",
    "int8": f"{_SIMULATED},{_CALIBRATE},round-weights",
    "int8-avx2": f"{_SIMULATED}{{weight_bits=7}},{_CALIBRATE},round-weights",
}
"""Pipelines by name. What ``int8-fast`` makes is among the choices of ``int8``: both have the same scales.
``int8-avx2`` is for processors without VNNI, where products of 7-bit weights cannot saturate."""

PRECISIONS: dict[str, str] = {"fp32": "", "bf16": "lower-precision{dtype=bfloat16}"}
"""What a precision adds to the end of a pipeline."""


def modules(package: str, *, folders: bool = False) -> dict[str, str]:
    """Name and module of each file, or else each folder, of a package of ours."""
    found = importlib.util.find_spec(package)
    paths = found.submodule_search_locations if found else None
    return {
        item.name.replace("_", "-"): f"{package}.{item.name}"
        for item in pkgutil.iter_modules(paths)
        if item.ispkg == folders
    }


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; none of them imported."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}


def pass_names() -> list[str]:
    """Names of all passes, ours and those of plug-ins, sorted."""
    return sorted({*modules("lvc.passes"), *plugins("lvc.passes")})


def find_pass(name: str) -> type[Pass] | None:
    """Return the pass of that name, or None; imports the one file that holds it."""
    from lvc.compiler.pipeline.passes import Pass

    own = modules("lvc.passes")
    if name in own:
        module = importlib.import_module(own[name])
        return next(
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Pass) and item.__dict__.get("name") == name
        )
    if name in plugins("lvc.passes"):
        loaded = load_plugin(plugins("lvc.passes")[name])
        if not (isinstance(loaded, type) and issubclass(loaded, Pass)):
            raise CompileError(
                f"the plug-in '{name}' is not a pass", help="its entry point must name a subclass of Pass"
            )
        return loaded
    return None


def backend_names() -> list[str]:
    """Names of all backends, sorted."""
    return sorted({*modules("lvc.backends", folders=True), *plugins("lvc.backends")})


def find_backend(name: str) -> Backend:
    """Return the backend of that name; each of ours is the ``BACKEND`` of its folder."""
    own = modules("lvc.backends", folders=True)
    if name in own:
        backend: Backend = importlib.import_module(own[name]).BACKEND
        return backend
    if name in plugins("lvc.backends"):
        return cast("Backend", load_plugin(plugins("lvc.backends")[name]))
    raise UsageError(f"there is no backend '{name}'", help="known: " + ", ".join(backend_names()))


def load_plugin(point: EntryPoint) -> object:
    """Import what an entry point names; `CompileError` naming it if that fails."""
    try:
        return point.load()
    except Exception as error:  # a plug-in may fail in any way; the user must learn which one
        raise CompileError(
            f"the plug-in '{point.name}' cannot be imported", where=point.value, why=f"{type(error).__name__}: {error}"
        ) from error

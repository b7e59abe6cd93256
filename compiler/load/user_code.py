"""Importing modules and files of the user, and telling where their code failed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.imports import large_imports
from lvc.compiler.load.origins import is_library

_OFFLINE = (
    "fetch the weights where there is a network and give them with --weights; "
    "switch a download off with --arg weights=None or --arg weights_backbone=None"
)


def import_place(place: str) -> ModuleType:
    """Import a module by dotted name, installed or in the working folder, or by the path of its ``.py`` file."""
    return _import_file(Path(place)) if place.endswith(".py") else _import_module(place)


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"there is no file and no Python module '{name}'")
    try:
        with _search(Path.cwd()), large_imports():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise failed(f"'{name}' cannot be imported", error) from error
        help = "install the package, or give a path that ends in .py"
        raise UsageError(f"there is no Python module '{name}'", help=help) from error
    except (Exception, SystemExit) as error:
        raise failed(f"'{name}' cannot be imported", error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'")
    path = path.resolve()
    name = f"lvc_user_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _search(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise failed(f"'{path}' cannot be run", error) from error
    finally:
        del sys.modules[name]
    return module


@contextlib.contextmanager
def _search(folder: Path) -> Iterator[None]:
    """Let imports find files in a folder, after everything that is installed."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def failed(what: str, error: BaseException) -> CompileError:
    """Turn what the user's code raised into one error that names their line, not one of a library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    offline = any(type(cause).__name__ in ("URLError", "HTTPError") for cause in _causes(error))
    help = _OFFLINE if offline else ""
    reason = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
    return CompileError(what, where=where, why=why, help=help)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__

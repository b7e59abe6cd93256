"""Loads what a function in a Python module or file returns: ``torchvision.models:resnet18``, ``net.py:make``."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.load.examples import make_examples
from lvc.compiler.load.origins import is_library
from lvc.compiler.load.torch_door import from_own_module
from lvc.compiler.load.weights import load_weights
from lvc.compiler.load.zoo import Recipe, find_recipe
from lvc.compiler.model import Model


def load_factory(
    source: str,
    *,
    shapes: Mapping[str, Sequence[int]],
    weights: Path | None,
    arguments: Mapping[str, Any],
    seed: int,
) -> Model:
    """Call a factory with its arguments, load weights into the module that it returns, and trace that.

    The factory runs as the Python code that it is, with the random generator of PyTorch seeded.
    """
    place, _, name = source.rpartition(":")
    factory = find_factory(place, name)
    recipe = find_recipe(factory, arguments)
    module, is_random = _make(factory, source, arguments, seed)
    if weights is not None:
        load_weights(module, weights)
    examples = make_examples(module, shapes, recipe.size)
    model = from_own_module(module, examples, name=name, source=source)
    _describe(model, recipe)
    if is_random and weights is None and not recipe.is_trained:
        model.notes.append(
            f"the weights are random (seed {seed}) unless the factory loaded its own; give trained ones with --weights"
        )
    return model


def find_factory(place: str, name: str) -> Callable[..., object]:
    """Import a module by dotted name or ``.py`` path and return its callable of that name."""
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    if found is not None:
        raise UsageError(
            f"'{place}:{name}' is not a factory",
            why=f"it is of type {type(found).__name__}, which cannot be called",
            help="name a function or class that returns a torch.nn.Module",
        )
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    close = difflib.get_close_matches(name, names, n=3)
    help = f"did you mean {' or '.join(map(repr, close))}?" if close else "name a function that returns the model"
    raise UsageError(f"'{place}' has no factory '{name}'", help=help)


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"there is no file and no Python module '{name}'")
    try:
        with _search(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _failed(f"'{name}' cannot be imported", error) from error
        help = "install the package, or give a path that ends in .py"
        raise UsageError(f"there is no Python module '{name}'", help=help) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"'{name}' cannot be imported", error) from error


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
        raise _failed(f"'{path}' cannot be run", error) from error
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


def _make(
    factory: Callable[..., object], source: str, arguments: Mapping[str, Any], seed: int
) -> tuple[torch.nn.Module, bool]:
    """Return the module that a factory makes, and whether random numbers were drawn for it."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        try:
            module = factory(**arguments)
        except LvcError:
            raise
        except (Exception, SystemExit) as error:
            raise _failed(f"the factory '{source}' failed", error) from error
        is_random = not torch.equal(before, torch.random.get_rng_state())
    if not isinstance(module, torch.nn.Module):
        raise CompileError(
            f"the factory '{source}' returned a {type(module).__name__}",
            help="a factory returns a torch.nn.Module",
        )
    return module, is_random


def _failed(what: str, error: BaseException) -> CompileError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    offline = any(type(cause).__name__ in ("URLError", "HTTPError") for cause in _causes(error))
    help = "fetch the weights where there is a network, and give them with --weights" if offline else ""
    reason = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
    return CompileError(what, where=where, why=why, help=help)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _describe(model: Model, recipe: Recipe) -> None:
    model.preprocessing = recipe.preprocessing
    model.labels = recipe.labels

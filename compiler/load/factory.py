"""Loads what a function in a Python module or file returns: ``torchvision.models:resnet18``, ``net.py:make``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lvc.compiler.errors import CompileError, LvcError, UsageError, did_you_mean
from lvc.compiler.ir.model import Model
from lvc.compiler.load.examples import make_examples
from lvc.compiler.load.scripted import plain
from lvc.compiler.load.torch_importer import from_own_module
from lvc.compiler.load.user_code import failed, import_place
from lvc.compiler.load.weights import load_weights
from lvc.compiler.load.zoo import Recipe, find_recipe


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
    module = plain(module)
    if weights is not None:
        load_weights(module, weights)
    examples = make_examples(module, shapes, recipe.size)
    model = from_own_module(module, examples, name=name, source=source)
    _describe(model, recipe)
    if is_random and weights is None and not recipe.is_trained:
        model.notes.append(
            f"if the factory draws its weights, they are random (seed {seed}); --weights FILE loads trained ones"
        )
    return model


def find_factory(place: str, name: str) -> Callable[..., object]:
    """Import a module by dotted name or ``.py`` path and return its callable of that name."""
    module = import_place(place)
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
    own = [key for key in names if getattr(getattr(module, key), "__module__", None) == module.__name__]
    known = f"it defines {', '.join(own[:12])}" if own else "name a function that returns the model"
    help = did_you_mean(name, names, most=3).rstrip() or known
    raise UsageError(f"'{place}' has no factory '{name}'", help=help)


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
            raise failed(f"the factory '{source}' failed", error) from error
        is_random = not torch.equal(before, torch.random.get_rng_state())
    if not isinstance(module, torch.nn.Module):
        raise CompileError(
            f"the factory '{source}' returned a value of type {type(module).__name__}",
            help="a factory returns a torch.nn.Module",
        )
    return module, is_random


def _describe(model: Model, recipe: Recipe) -> None:
    model.preprocessing = recipe.preprocessing
    model.labels = recipe.labels

"""What a peer engine is, and how one is found: each is a file of `lvc.compiler.bench.engines`."""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import numpy as np

from lvc.compiler.errors import LvcError, UsageError, did_you_mean
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.timing import unpinned
from lvc.compiler.writing import write_model

Run = Callable[..., tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Original:
    """The model as it was before lvc, in the forms that engines take. ``scratch`` is a folder for files made of it;
    those that are there are used again."""

    request: LoadRequest
    scratch: Path

    @cached_property
    def model(self) -> Model:
        return self.request.load()

    @cached_property
    def onnx(self) -> Path:
        """An ONNX file: the user's own if the model came from one and no shape was fixed, else one written of it."""
        if self.request.source.endswith(".onnx") and not self.request.shapes:
            return Path(self.request.source)
        path = self.scratch / "model.onnx"
        if not path.exists():
            write_model(self.model, path)
        return path

    def made_once(self, name: str, write: Callable[[Path], None]) -> Path:
        """A file of the folder. ``write`` makes it if it is missing, and what it puts beside it; all appears when it
        is whole."""
        file = self.scratch / name
        if not file.exists():
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                write(Path(folder) / name)
                for made in sorted(Path(folder).iterdir(), key=lambda path: path.name == name):
                    made.replace(file.with_name(made.name))
        return file


class Engine(ABC):
    """Something else that runs models. ``package`` is its distribution's name."""

    name: ClassVar[str]
    package: ClassVar[str]

    def version(self) -> str:
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise missing(self) from None

    @abstractmethod
    def prepare(self, original: Original, threads: int) -> Run:
        """Load the model for that many threads, in 32-bit floating point; the result takes and returns arrays.

        The arrays that it returns may be overwritten by its next call.
        """


def missing(engine: Engine) -> UsageError:
    return UsageError(f"{engine.name} is not installed", help=f"pip install {engine.package}")


def engine_names() -> list[str]:
    package = importlib.import_module("lvc.compiler.bench.engines")
    return sorted(item.name for item in pkgutil.iter_modules(package.__path__))


def find_engine(name: str) -> Engine:
    """Return the engine of that name, whose words may be joined by hyphens; `UsageError` with a suggestion if there is
    none."""
    known, name = engine_names(), name.replace("-", "_")
    if name not in known:
        raise UsageError(f"there is no engine '{name}'", help=f"{did_you_mean(name, known)}known: {', '.join(known)}")
    engine: Engine = importlib.import_module(f"lvc.compiler.bench.engines.{name}").ENGINE
    return engine


def prepare(engine: Engine, original: Original, threads: int) -> Run:
    """Prepare an engine; whatever it raises becomes one error that names it, and it leaves this thread unpinned."""
    try:
        with unpinned():
            return engine.prepare(original, threads)
    except LvcError:
        raise
    except ModuleNotFoundError as error:
        raise missing(engine) from error
    except Exception as error:  # engines raise types of their own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{engine.name} cannot run this model", why=first) from error

"""Kinds of things that are found by name: passes, backends, criteria and others, each kind a line beside what it is.

A thing is a file, or a folder, of the kind's package, called after it: the pass `fold-batch-norm` is
`lvc/passes/fold_batch_norm.py`. Other packages add theirs through entry points, of the group `lvc.passes` for passes.
Nothing is imported but what is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from lvc.compiler.errors import CompileError, UsageError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Component(ABC):
    """What is chosen by its ``name``. Fields are options; written ``NAME{option=value}``."""

    name: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring: what it does."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def options(cls) -> tuple[Field[Any], ...]:
        return fields(cls)

    def __str__(self) -> str:
        from lvc.compiler.pipeline.text import format_item

        return format_item(self)


@dataclass(frozen=True)
class Registry(ABC, Generic[T]):
    """A kind of things. ``base`` is what each derives from, as ``module:Class``; ``noun`` is what errors call one.

    The group of entry points is ``lvc.`` and the last part of the package's name unless ``plugins`` says otherwise.
    """

    base: str
    package: str
    noun: str
    plugins: str = ""

    folders = False
    must = "be"  # what an entry point has to do with the base

    @property
    def group(self) -> str:
        return self.plugins or f"lvc.{self.package.rpartition('.')[-1]}"

    def names(self) -> list[str]:
        """Names of all, ours and those of plug-ins, sorted."""
        return sorted({*self._own(), *entry_points(self.group)})

    def find(self, name: str) -> T | None:
        """Return the one of that name, or None; `CompileError` that names a plug-in which is broken."""
        if module := self._own().get(name):
            return self.of_module(importlib.import_module(module), name)
        point = entry_points(self.group).get(name)
        if point is None:
            return None
        found = _load(point)
        if not self.holds(found):
            raise CompileError(
                f"the plug-in '{name}' is no {self.noun}",
                where=point.value,
                help=f"its entry point must {self.must} {self.base.rpartition(':')[-1]}",
            )
        return found  # type: ignore[return-value]

    def get(self, name: str) -> T:
        """Return the one of that name; `UsageError` with a suggestion if there is none."""
        found = self.find(name)
        if found is None:
            known = self.names()
            help = f"{did_you_mean(name, known)}known: {', '.join(known)}"
            raise UsageError(f"there is no {self.noun} '{name}'", help=help)
        return found

    @abstractmethod
    def holds(self, item: object) -> bool:
        """Whether something is of the kind."""

    @abstractmethod
    def of_module(self, module: Any, name: str) -> T | None:
        """Return the one of that name in a module of ours."""

    def _own(self) -> dict[str, str]:
        return _modules(self.package, self.folders)

    def _base(self) -> Any:
        module, _, name = self.base.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Classes(Registry[type[T]]):
    """A kind of `Component`s."""

    must = "name a subclass of"

    def parse(self, text: str) -> T:
        """Read ``NAME`` or ``NAME{option=value}``; `UsageError` with a suggestion for anything else."""
        from lvc.compiler.pipeline.text import parse_item

        made: T = parse_item(text, self)
        return made

    def holds(self, item: object) -> bool:
        return isinstance(item, type) and issubclass(item, self._base())

    def of_module(self, module: Any, name: str) -> type[T] | None:
        return next((k for k in vars(module).values() if self.holds(k) and k.__dict__.get("name") == name), None)


@dataclass(frozen=True)
class Objects(Registry[T]):
    """A kind of objects, each called ``variable`` in its module; a module that has none is something else."""

    variable: str = ""
    folders: bool = False

    must = "name an object that is a"

    def holds(self, item: object) -> bool:
        return isinstance(item, self._base())

    def of_module(self, module: Any, name: str) -> T | None:
        found = getattr(module, self.variable, None)
        return found if self.holds(found) else None


def _modules(package: str, folders: bool) -> dict[str, str]:
    """Name and module of each file, or else each folder, of a package."""
    found = importlib.util.find_spec(package)
    paths = found.submodule_search_locations if found else None
    return {
        item.name.replace("_", "-"): f"{package}.{item.name}"
        for item in pkgutil.iter_modules(paths)
        if item.ispkg == folders
    }


@cache
def entry_points(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; none of them imported."""
    from importlib.metadata import entry_points as points

    return {point.name: point for point in points(group=group)}


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # a plug-in may fail in any way; the user must learn which one
        raise CompileError(
            f"the plug-in '{point.name}' cannot be imported", where=point.value, why=f"{type(error).__name__}: {error}"
        ) from error

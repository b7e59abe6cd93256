"""Named things of one kind besides passes and backends, such as observers: one a file, found without importing others.

One named `moving-average` is the file `moving_average.py` of the kind's package; other packages add theirs through
entry points. The written form is that of a pass: ``NAME{option=value}``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Generic, TypeVar

from lvc.compiler.errors import CompileError
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.text import parse_item

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The frozen dataclasses that derive from ``base``, in the files of ``package`` and the entry points ``plugins``.

    Each has a ``name``, and ``options()``, its fields. ``noun`` is what errors call one.
    """

    base: type[T]
    package: str
    plugins: str
    noun: str

    def names(self) -> list[str]:
        """Names of all, ours and those of plug-ins, sorted."""
        return sorted({*catalogue.modules(self.package), *catalogue.plugins(self.plugins)})

    def parse(self, text: str) -> T:
        """Read ``NAME`` or ``NAME{option=value}``; `UsageError` with a suggestion for anything else."""
        made = parse_item(text, self.find, self.names(), self.noun)
        assert isinstance(made, self.base)
        return made

    def find(self, name: str) -> type[T] | None:
        """Return the one of that name, or None; imports the one file that holds it."""
        own = catalogue.modules(self.package)
        if name in own:
            found = vars(importlib.import_module(own[name])).values()
            kind: type[T] = next(k for k in found if self.holds(k) and k.__dict__.get("name") == name)
            return kind
        if name not in catalogue.plugins(self.plugins):
            return None
        loaded = catalogue.load_plugin(catalogue.plugins(self.plugins)[name])
        if not self.holds(loaded):
            raise CompileError(
                f"the plug-in '{name}' is no {self.noun}",
                help=f"its entry point must name a subclass of {self.base.__name__}",
            )
        return loaded  # type: ignore[return-value]

    def holds(self, item: object) -> bool:
        """Whether something is of the kind."""
        return isinstance(item, type) and issubclass(item, self.base)

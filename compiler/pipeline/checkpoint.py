"""Models that long work leaves behind after each step, so that it can go on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model

_TOLD = "told.json"


@dataclass(frozen=True)
class Finished:
    """A step that was finished: its number, the model after it, and what the work had to tell of all until then."""

    step: int
    model: Model
    told: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The steps of one piece of work in a folder; without a folder nothing is kept.

    ``key`` tells what is done to which model, so that a folder never serves other work. Each step is an ordinary model
    file: ``lvc eval`` and ``lvc inspect`` take it.
    """

    folder: Path | None
    key: str

    @classmethod
    def of(cls, folder: Path | None, work: str, model: Model) -> Checkpoints:
        """The checkpoints of some work, told in words, on a model as it is now; makes the folder."""
        if folder is None:
            return cls(None, "")
        _make(folder)
        from lvc.compiler.ir.serialise import to_files

        digest = hashlib.sha256(work.encode())
        for content in to_files(model).values():
            digest.update(content)
        return cls(folder, f"{model.name}-{digest.hexdigest()[:12]}")

    def last(self) -> Finished | None:
        """Return the last step that was finished; `CompileError` if its file is broken."""
        from lvc.compiler import container
        from lvc.compiler.ir.serialise import from_files

        if self.folder is None:
            return None
        steps = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{self.key}-*.lvc")]
        if not steps:
            return None
        path = self._path(max(steps))
        try:
            files = container.read(path).files
            return Finished(max(steps), from_files(files), json.loads(bytes(files[_TOLD])))
        except (CompileError, KeyError, ValueError) as error:
            what, why = (error.what, error.why) if isinstance(error, CompileError) else (f"'{path}' is damaged", "")
            raise CompileError(what, why=why, help=f"remove {path} to go on from the step before") from error

    def save(self, step: int, model: Model, told: Mapping[str, Any]) -> None:
        """Keep the model after a step, and beside it what the work has to tell of all steps so far, as JSON has it."""
        from lvc.compiler.writing import write_model

        if self.folder is not None:
            write_model(model, self._path(step), {_TOLD: json.dumps(told).encode()})

    def _path(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.key}-{step}.lvc"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"'{folder}' cannot be a folder of checkpoints", why=error.strerror or "", help="name a folder, new or old"
        ) from error

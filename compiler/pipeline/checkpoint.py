"""Models that long work leaves behind after each step, so that it can go on from there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model


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

    def last(self) -> tuple[int, Model] | None:
        """Return the last step that was finished, and the model after it; `CompileError` if its file is broken."""
        from lvc.compiler.load import load

        if self.folder is None:
            return None
        steps = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{self.key}-*.lvc")]
        if not steps:
            return None
        path = self._path(max(steps))
        try:
            return max(steps), load(str(path))
        except CompileError as error:
            raise CompileError(
                error.what, why=error.why, help=f"remove {path} to go on from the step before"
            ) from error

    def save(self, step: int, model: Model) -> None:
        """Keep the model after a step."""
        from lvc.compiler.writing import write_model

        if self.folder is not None:
            write_model(model, self._path(step))

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

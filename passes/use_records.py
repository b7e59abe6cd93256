"""Let kernels be made as tuning has found to be fastest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted
from lvc.compiler.tuning.database import Database, users_database


@dataclass(frozen=True, kw_only=True)
class UseRecords(Pass):
    """Let a backend make kernels by the records of a tuning database, which 'lvc tune' fills.

    Only records of the target's own processor and of this version of lvc count; the others are left out with a note.
    The graph stays as it is.
    """

    name: ClassVar[str] = "use-records"
    effect: ClassVar[Effect] = Effect.EXACT

    database: str = option("", "the database's file (default: the user's own)")

    @property
    def records(self) -> Path | None:
        path = Path(self.database) if self.database else users_database()
        return path if self.database or path.is_file() else None

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        model.records = self.records
        if model.records is None:
            return Outcome(notes=["no kernel has been tuned yet: 'lvc tune' does it"])
        count = len(Database(model.records).records())
        return Outcome(notes=[f"kernels may be made by {counted(count, 'record')} of {model.records}"])

"""Let kernels be made as tuning has found to be fastest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted
from lvc.compiler.tuning.database import Database
from lvc.compiler.tuning.postgres import shown
from lvc.compiler.tuning.store import is_url, users_database


@dataclass(frozen=True, kw_only=True)
class UseRecords(Pass):
    """Let a backend make kernels by the records of a tuning database, which 'lvc tune' fills.

    Records that come with lvc stand in for kernels that have not been tuned. Only records of the target's own processor
    and of this version of lvc count; the others are left out with a note.
    The graph stays as it is.
    """

    name: ClassVar[str] = "use-records"
    effect: ClassVar[Effect] = Effect.EXACT

    database: str = option("", "the database's file, or its PostgreSQL URL (default: the user's own)")

    def __post_init__(self) -> None:
        if is_url(self.database) and shown(self.database) != self.database:
            help = "PGPASSWORD and ~/.pgpass may hold it, and LVC_TUNING the whole URL"
            raise UsageError("a pipeline has no place for a password", why="artefacts and reports tell it", help=help)

    @property
    def records(self) -> str:
        location = self.database or users_database()
        return location if self.database or is_url(location) or Path(location).is_file() else ""

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        model.records = self.records
        if not model.records:
            return Outcome(notes=["no kernel is tuned yet, which 'lvc tune' does: only lvc's own records count"])
        database = Database(model.records)
        count = len(database.records())
        return Outcome(notes=[f"kernels may be made by {counted(count, 'record')} of {database.name}"])

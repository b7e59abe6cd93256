"""What is verified of one compilation, and on which inputs."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.compiler.artefact import Artefact
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import si
from lvc.compiler.verification.artefact import verify_artefact
from lvc.compiler.verification.examples import Example, examples_of
from lvc.compiler.verification.record import Verified
from lvc.compiler.verification.source import verify_source

QUICK_MACS = 20e9
"""Models of more multiply-accumulates are verified only where that is asked for: they take seconds to run."""


@dataclass(frozen=True)
class Verification:
    """The ``examples`` that a model and what is built from it are run on; without any, ``skipped`` says why."""

    model: Model
    examples: tuple[Example, ...]
    is_thorough: bool
    workspace: Workspace
    skipped: str = ""

    @classmethod
    def of(cls, model: Model, workspace: Workspace, *, check: bool, verify: bool) -> Verification:
        """All there is with ``check``; with ``verify`` one set of inputs, of a model that runs in a moment."""
        skipped = "" if check or verify else "--no-verify"
        if not check and not skipped and (amount := total_macs(model.module.graph)) > QUICK_MACS:
            skipped = f"{si(amount, 'MACs')} take seconds to run, so only --check does"
        examples = () if skipped else tuple(examples_of(model, workspace.seed, thorough=check))
        return cls(model, examples, check, workspace, skipped)

    def source(self) -> Verified:
        """Compare the model with its source; `CheckError` if it is something else."""
        if self.skipped:
            return Verified(skipped=self.skipped)
        return verify_source(self.model, self.examples, thorough=self.is_thorough)

    def artefact(self, artefact: Artefact, rewritten: Model, pipeline: Pipeline) -> Verified:
        """Compare what was built with the model, or if passes moved outputs with the ``rewritten`` one."""
        if self.skipped:
            return Verified(skipped=self.skipped)
        is_lossy = any(item.effect is Effect.LOSSY for item in pipeline)
        examples = self.examples
        if rewritten.inputs != self.model.inputs or rewritten.outputs != self.model.outputs:
            examples = tuple(examples_of(rewritten, self.workspace.seed, thorough=self.is_thorough))
        return verify_artefact(
            artefact,
            rewritten,
            examples,
            is_lossy=is_lossy,
            is_thorough=self.is_thorough,
            threads=self.workspace.threads,
            device=self.workspace.device,
        )

"""A model as code of its own: made for a target the way most models are compiled, without a file or a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Executable, Target
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace

PIPELINE = "O2"
"""What a model goes through before it is built."""


def build(model: Model, target: Target, workspace: Workspace) -> tuple[Model, Artefact]:
    """Return a model as it is built, and what was built of it; the model itself is left as it was."""
    from lvc.compiler.pipeline import catalogue
    from lvc.compiler.pipeline.pipeline import Pipeline

    backend = catalogue.BACKENDS.get(target.backend)
    optimised, _ = Pipeline.parse(PIPELINE).run(model, workspace, completion=backend.completion)
    return optimised, backend.build(optimised, target, workspace)


def host_code(model: Model, workspace: Workspace) -> Executable:
    """Return what runs a model on this machine, on as many threads as the workspace says."""
    from lvc.compiler.backend import Target
    from lvc.compiler.pipeline import catalogue

    target = Target.parse("native")
    _, artefact = build(model, target, workspace)
    return catalogue.BACKENDS.get(target.backend).load(artefact, workspace.threads)

"""The backend that runs the graph in PyTorch: slow, exact, and the oracle of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Backend, Executable, Target

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace


class ReferenceBackend(Backend):
    """Stores the graph as it is and runs it in PyTorch."""

    name: ClassVar[str] = "reference"
    model_suffix: ClassVar[str] = ".lvc"

    def targets(self) -> dict[str, str]:
        return {"reference": "the graph itself, run in PyTorch"}

    def parse_target(self, text: str) -> Target | None:
        return Target(text, self.name, "torch") if text == "reference" else None

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        from lvc.compiler.ir.serialise import to_files

        return Artefact(
            name=model.name,
            backend=self.name,
            target=target.text,
            inputs=model.inputs,
            outputs=model.outputs,
            files=to_files(model),
        )

    def load(self, artefact: Artefact, threads: int | None = None) -> Executable:
        from lvc.compiler.ir.operators.uncalibrated import refuse_uncalibrated
        from lvc.compiler.ir.serialise import from_files

        model = from_files(artefact.files)
        refuse_uncalibrated(model.module.graph)
        return _Runner(model, threads)


class _Runner:
    def __init__(self, model: Model, threads: int | None) -> None:
        self.model = model
        self.threads = threads

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        if self.threads is None:
            return self.model(*inputs)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self.model(*inputs)
        finally:
            torch.set_num_threads(before)


BACKEND = ReferenceBackend()

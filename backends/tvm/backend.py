"""The TVM backend: legality, then lowering and building.

TVM and PyTorch are imported by the methods that need them; `load` does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.cpu.isa.choice import parts_that_multiply
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Backend, Target
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.text import counted

if TYPE_CHECKING:
    import torch

    from lvc.backends.tvm.cpu.runtime.executable import Executable
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace


class TvmBackend(Backend):
    """Native x86-64 code: one shared library, one file of weights, one plan."""

    name: ClassVar[str] = "tvm"

    def targets(self) -> dict[str, str]:
        return targets.target_texts()

    def parse_target(self, text: str) -> Target | None:
        return targets.parse_target(text)

    def refusal(self, dtypes: Collection[torch.dtype], target: Target) -> UsageError | None:
        import torch

        if torch.bfloat16 not in dtypes or "bfloat16" in targets.vector_of(target).isa.dots:
            return None
        return UsageError(
            f"the target '{target.text}' cannot multiply bfloat16",
            why=f"{target.cpu} has no {' or '.join(parts_that_multiply('bfloat16'))}",
            help=f"take --precision fp32, or a target that has it: {', '.join(targets.that_multiply('bfloat16'))}",
        )

    def channel_multiple(self, target: Target) -> int:
        return targets.vector_of(target).lanes

    def completion(self, model: Model) -> str:
        """What quantisation only simulates is computed in integers."""
        from lvc.backends.tvm.integers import simulates_integers

        return "lower-to-integer,fuse-operators" if simulates_integers(model) else ""

    def remarks(self, model: Model, target: Target) -> list[str]:
        from lvc.backends.tvm.integers import layers_of_wide_weights

        wide = layers_of_wide_weights(model)
        if not wide or "uint8" in targets.vector_of(target).isa.dots:
            return []
        return [
            f"{counted(len(wide), 'layer')} with weights of 8 bits, and {target.cpu} multiplies 7 bits about 1.5 "
            "times as fast, since it has no VNNI: try the preset int8-avx2"
        ]

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        """Make a shared library for a model; `CompileError` names every node that cannot be lowered."""
        if importlib.util.find_spec("tvm") is None:
            raise CompileError("the tvm backend needs apache-tvm", help="pip install 'apache-tvm>=0.27.0.post1,<0.28'")
        from lvc.backends.tvm.legality import check, multiplied_dtypes

        check(model)
        if error := self.refusal(multiplied_dtypes(model), target):
            raise CompileError(error.what, why=error.why, help=error.help)
        from lvc.backends.tvm.build import build_files
        from lvc.backends.tvm.lower import lower

        program = lower(model, targets.vector_of(target))
        built = build_files(program, target, workspace)
        metadata = {"memory": built.memory.to_json(), "remarks": built.remarks}
        return Artefact(model.name, self.name, target.text, model.inputs, model.outputs, built.files, metadata)

    def load(self, artefact: Artefact, threads: int | None = None) -> Executable:
        """Load a built model; it may be called from several threads at once."""
        from lvc.backends.tvm.cpu.runtime.executable import Executable

        return Executable(artefact.files, threads)

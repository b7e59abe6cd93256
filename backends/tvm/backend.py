"""The TVM backend: legality, then lowering and building. TVM is imported by the methods that need it."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.fx import Node

from lvc.backends.tvm import targets
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Backend, Target
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, op_name, origin, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted

if TYPE_CHECKING:
    from lvc.backends.tvm.runtime.executable import Executable

_SEVEN_BITS = 64


class TvmBackend(Backend):
    """Native x86-64 code: one shared library, one file of weights, one plan."""

    name: ClassVar[str] = "tvm"

    def targets(self) -> dict[str, str]:
        return targets.target_texts()

    def parse_target(self, text: str) -> Target | None:
        return targets.parse_target(text)

    def refusal(self, dtypes: Collection[torch.dtype], target: Target) -> UsageError | None:
        if torch.bfloat16 not in dtypes or targets.BFLOAT16 in target.features:
            return None
        return UsageError(
            f"the target '{target.text}' cannot multiply bfloat16",
            why=f"{target.cpu} has no {targets.BFLOAT16}",
            help=f"take --precision fp32, or a target that has it: {', '.join(targets.with_feature(targets.BFLOAT16))}",
        )

    def channel_multiple(self, target: Target) -> int:
        return targets.vector_of(target).lanes

    def completion(self, model: Model) -> str:
        """What quantisation only simulates is computed in integers."""
        return "lower-to-integer,fuse-operators" if simulates_integers(model) else ""

    def remarks(self, model: Model, target: Target) -> list[str]:
        wide = layers_of_wide_weights(model)
        if not wide or "uint8" in targets.vector_of(target).dots:
            return []
        return [
            f"{counted(len(wide), 'layer')} with weights of 8 bits, and {target.cpu} multiplies 7 bits about 1.5 "
            "times as fast, since it has no VNNI: try the preset int8-avx2"
        ]

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        """Make a shared library for a model; `CompileError` names every node that cannot be lowered."""
        if importlib.util.find_spec("tvm") is None:
            raise CompileError("the tvm backend needs apache-tvm", help="pip install 'apache-tvm>=0.27.0.post1,<0.28'")
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
        from lvc.backends.tvm.runtime.executable import Executable

        return Executable(artefact.files, threads)


def simulates_integers(model: Model) -> bool:
    """Whether activations are rounded to grids in floating point."""
    grids = list(calls(model.module.graph, aten.fake_quantize_per_tensor_affine.default))
    is_lowered = any(node.target in integer.OPERATORS for node in calls(model.module.graph))
    return not is_lowered and any(node.all_input_nodes[0].op != "get_attr" for node in grids)


def layers_of_wide_weights(model: Model) -> list[Node]:
    """The integer layers with weights of more than 7 bits, products of two of which exceed 16 bits."""
    found = []
    for node in calls(model.module.graph, integer.conv2d, integer.linear):
        weight = tensor(model.module, arguments(node)["weight"])
        if weight is not None and weight.shape[1] > 1 and bool((weight.int().abs() > _SEVEN_BITS).any()):
            found.append(node)
    return found


def _widen(model: Model) -> str:
    halves = any(value.spec.dtype == torch.float16 for value in model.inputs)
    return "export the model in float32; " if halves else ""


def multiplied_dtypes(model: Model) -> set[torch.dtype]:
    """The element types in which factors of contractions are stored."""
    from lvc.backends.tvm.widening import multiplies_pairs

    return {torch.bfloat16 if multiplies_pairs(node) else spec(node).dtype for node in calls(model.module.graph)}


def check(model: Model) -> None:
    """Raise one `CompileError` that lists every node which this backend cannot lower, with the reason."""
    from lvc.backends.tvm.legality import refusal
    from lvc.backends.tvm.widening import refusal_of_bfloat16, touches_bfloat16

    problems = []
    for node in [*(n for n in model.module.graph.nodes if n.op == "placeholder"), *calls(model.module.graph)]:
        if reason := refusal_of_bfloat16(node) if touches_bfloat16(node) else refusal(node):
            problems.append(f"{node.name} ({op_name(node)}, {spec(node)}, from {origin(node)}): {reason}")
    if problems:
        raise CompileError(
            f"the tvm backend cannot build {len(problems)} node(s) of this model",
            why="\n".join(problems),
            help=f"{_widen(model)}--target reference runs any model",
        )

"""What this backend cannot lower, said before any work is done."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.backends.tvm.widening import multiplied_dtype, refusal_of_short, touches_short
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.graph import calls, op_name, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED, WHY_NOT

DTYPES = frozenset({torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8, torch.int8})


def check(model: Model) -> None:
    """Raise one `CompileError` that lists every node which this backend cannot lower, with the reason."""
    problems = []
    for node in [*(n for n in model.module.graph.nodes if n.op == "placeholder"), *calls(model.module.graph)]:
        if reason := refusal_of_short(node) if touches_short(node) else refusal(node):
            problems.append(f"{node.name} ({op_name(node)}, {spec(node)}, from {origin(node)}): {reason}")
    if problems:
        raise CompileError(
            f"the tvm backend cannot build {len(problems)} node(s) of this model",
            why="\n".join(problems),
            help=f"{_widen(model)}--target reference runs any model",
        )


def multiplied_dtypes(model: Model) -> set[torch.dtype]:
    """The element types in which factors of contractions are stored."""
    return {multiplied_dtype(node) or spec(node).dtype for node in calls(model.module.graph)}


def multiplied_elements(model: Model) -> set[str]:
    """Their names."""
    return {str(dtype).removeprefix("torch.") for dtype in multiplied_dtypes(model)}


def refusal(node: Node) -> str | None:
    """Why a node cannot be lowered; None if it can."""
    if spec(node).dtype not in DTYPES:
        return f"there are no kernels for {spec(node).dtype}"
    if node.op == "call_function" and node.target not in OPS:
        return "the operator is not in the dialect"
    if node.target is UNCALIBRATED:
        return f"{WHY_NOT}: run calibrate first"
    if node.target is FAKE_QUANTIZE_CODEBOOK:
        return "its levels are only simulated: run lower-to-integer"
    if spec(node).elements == 0:
        return "it has no elements"
    return None


def _widen(model: Model) -> str:
    halves = any(value.spec.dtype == torch.float16 for value in model.inputs)
    return "export the model in float32; " if halves else ""

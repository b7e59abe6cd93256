"""What this backend cannot lower, said before any work is done."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.operators.levels import FAKE_QUANTIZE_LEVELS
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED, WHY_NOT

DTYPES = frozenset({torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8, torch.int8})


def refusal(node: Node) -> str | None:
    """Why a node cannot be lowered; None if it can."""
    if spec(node).dtype not in DTYPES:
        return f"there are no kernels for {spec(node).dtype}"
    if node.op == "call_function" and node.target not in OPS:
        return "the operator is not in the dialect"
    if node.target is UNCALIBRATED:
        return f"{WHY_NOT}: run calibrate first"
    if node.target is FAKE_QUANTIZE_LEVELS:
        return "its levels are only simulated: run lower-to-integer"
    if spec(node).elements == 0:
        return "it has no elements"
    return None

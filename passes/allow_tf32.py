"""Mark contractions whose factors a backend may round to TF32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import arguments, calls, family, is_widening, spec, tensor
from lvc.compiler.ir.layers import factors, is_depthwise
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.narrowing import Places
from lvc.passes.analysis.patterns import left_out


@dataclass(frozen=True, kw_only=True)
class AllowTf32(Pass):
    """Mark layers in float32 whose data and weights a backend may round to TF32, to multiply them by tensor cores.

    TF32 has the range of float32 and 10 bits behind the point, so nothing overflows; products are summed in float32.
    The graph is as it was, so what it says in PyTorch is exact: only the code that is built rounds, and is compared
    with what rounding both factors of all marked layers gives. Depthwise convolutions, products of two activations and
    layers that give places at which images are sampled are left alone. Targets without TF32 are refused where they are
    named with this pass, and ignore marks that a model brings along.
    """

    name: ClassVar[str] = "allow-tf32"
    effect: ClassVar[Effect] = Effect.LOSSY

    skip: tuple[str, ...] = option((), "patterns of contractions to leave alone, by node or origin, as 'layer4.*'")

    @property
    def elements(self) -> frozenset[str]:
        return frozenset({TF32})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        graph, outcome = model.module.graph, Outcome()
        contractions = [node for node in calls(graph) if family(node) is Family.CONTRACTION]
        skipped, places = left_out(contractions, (), self.skip), Places.of(graph)
        for node in contractions:
            reason = skipped.get(node) or refusal(model.module, node, places)
            if reason:
                outcome.skip(node, reason)
                node.meta.pop(TF32, None)
            elif TF32 not in node.meta:
                node.meta[TF32] = 1
                outcome.change(node)
        return outcome


def refusal(module: GraphModule, node: Node, places: Places) -> str | None:
    """Why a contraction is multiplied as it is; None if it may be rounded."""
    read = factors(node)
    if spec(node).dtype is not torch.float32:
        return f"it computes in {spec(node).dtype}".replace("torch.", "")
    if any(map(is_widening, read)):
        return "it reads shorter numbers"
    if is_depthwise(node):
        return "it is depthwise, which no tensor core computes"
    if "weight" not in arguments(node) or tensor(module, arguments(node)["weight"]) is None:
        return "its factors are both computed in the graph"
    if node in places.moved:
        return "it gives the places at which an image is sampled, which would be wrong by pixels"
    return None

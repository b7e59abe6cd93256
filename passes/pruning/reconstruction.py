"""After a removal, give the layers that lost inputs the weights that best restore what they gave before."""

from __future__ import annotations

from torch.fx import Node

from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.layers import MATRIX_LAYERS, contraction, factors
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channels.proof import Kept
from lvc.passes.fitting.layers import Target, check_layer, fit_layers


def reconstruct(before: Model, after: Model, kept: Kept, data: Calibration, outcome: Outcome) -> None:
    """Fit each layer of ``after`` that lost inputs to what it gave in ``before``, and say how many were fitted.

    As much of the data is used as fits into memory. ``kept`` says which indices of each value stayed, see
    `Channels.kept`.
    """
    known = {node.name: node for node in before.module.graph.nodes}
    targets: dict[Node, Target] = {}
    for layer in _narrowed(after, kept):
        if reason := check_layer(layer):
            outcome.skip(layer, f"not reconstructed: {reason}")
        else:
            targets[layer] = Target(known[layer.name], kept[layer.name][contraction(layer).axis])
    used = fit_layers(before, after, targets, data)
    outcome.notes.append(f"{len(targets)} layers reconstructed on {used.different} images")


def _narrowed(model: Model, kept: Kept) -> list[Node]:
    """Return the layers whose weight lost inputs."""
    layers = [n for n in model.module.graph.nodes if is_call(n, *MATRIX_LAYERS)]
    weights = {n: factors(n)[1] for n in layers}
    return [n for n, w in weights.items() if w.op == "get_attr" and kept[w.name][contraction(n).read] is not None]

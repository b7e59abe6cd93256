"""Labels through normalisations: their parameters belong to the channels that they scale.

Batch and instance normalisation look at one channel at a time. Layer and group normalisation take statistics over
several; after a removal these are the statistics of the channels that remain.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments
from lvc.passes.analysis.channels.flow import Dim, Flow, rule
from lvc.passes.analysis.channels.layers import POSITIONS

_VECTORS = ("weight", "bias", "running_mean", "running_var")


def _scaled(flow: Flow, dim: Dim, args: dict[str, object]) -> Dim:
    """Join channels with the vectors of parameters and statistics that a normalisation has."""
    return flow.join(dim, *(flow.of(args[name])[-1] for name in _VECTORS if args.get(name) is not None))


@rule(aten.batch_norm.default, aten.instance_norm.default)
def by_channel(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    x = list(flow.of(args["input"]))
    x[1] = _scaled(flow, x[1], args)
    if node.target is aten.instance_norm.default:
        x[2:] = [flow.fix(dim, POSITIONS) for dim in x[2:]]
    return x


@rule(aten.layer_norm.default)
def layer_norm(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    x = list(flow.of(args["input"]))
    first = len(x) - len(args["normalized_shape"])
    for dim in range(first, len(x)):
        vectors = [flow.of(args[name])[dim - first] for name in ("weight", "bias") if args[name] is not None]
        x[dim] = flow.join(x[dim], *vectors)
    return x


@rule(aten.group_norm.default)
def group_norm(flow: Flow, node: Node) -> Sequence[Dim]:
    """Whole groups go, or the same places of every group, whichever leaves more units; one group ties nothing."""
    args = arguments(node)
    x = list(flow.of(args["input"]))
    groups = args["num_groups"]
    x[1] = _scaled(flow, x[1], args)
    if groups > 1 and not isinstance(x[1], str):
        rows = x[1].view(groups, -1)
        flow.tie(rows if groups >= rows.shape[1] else rows.T)
    return x

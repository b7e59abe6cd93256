"""Remove units from a model: stored tensors are cut, sizes that are written in calls follow, and index maps are proved.

The sizes that a reshape, a slice or a padding spells are computed from what is left of the labels; the proof that they
are right is in `proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import (
    arguments,
    calls,
    family,
    infer_spec,
    op_name,
    origin,
    set_argument,
    spec,
    store,
    tensor,
)
from lvc.compiler.ir.layers import CONTRACTIONS, LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.passes.analysis.channel_groups import Channels, Removal
from lvc.passes.analysis.channels.movement import pad_amounts
from lvc.passes.analysis.channels.proof import Kept, Movement, cut


def remove(model: Model, channels: Channels, removal: Removal) -> list[str]:
    """Remove units in place, and return the names of the calls whose result became narrower.

    ``channels`` are those of this model as it is, or of the model that it is an unchanged copy of. `UsageError` for
    units that are not there, `CompileError` if the index maps cannot be proved.
    """
    kept = channels.kept(removal)
    moved = {node: Movement(node) for node in calls(model.module.graph) if family(node) is Family.MOVEMENT}
    for node in model.module.graph.nodes:
        if node.op == "get_attr":
            _cut(model, node, kept[node.name])
        elif node.op == "call_function":
            if node.target in _SIZES:
                _SIZES[node.target](node, kept)
            node.meta["spec"] = infer_spec(node)
            _check_shape(node, channels.sizes[node.name], kept)
    for movement in moved.values():
        movement.prove(model, kept)
    model.module.recompile()
    return [node.name for node in calls(model.module.graph) if any(mask is not None for mask in kept[node.name])]


def _check_shape(node: Node, sizes: Sequence[int], kept: Kept) -> None:
    expected = tuple(remaining(sizes, kept[node.name]))
    if spec(node).shape != expected:
        raise CompileError(
            f"channels cannot be removed through {op_name(node)}",
            where=origin(node),
            why=f"its result became {spec(node)}, and the channels that stay are {expected}",
        )


def _cut(model: Model, node: Node, masks: Sequence[torch.Tensor | None]) -> None:
    """Keep the marked indices of a stored tensor."""
    if all(mask is None for mask in masks):
        return
    value = tensor(model.module, node)
    assert value is not None
    left = cut(value.detach(), masks).contiguous()
    store(model.module, str(node.target), left, trainable=isinstance(value, torch.nn.Parameter))
    node.meta["spec"] = TensorSpec.of(left)


def remaining(sizes: Sequence[int], masks: Sequence[torch.Tensor | None]) -> list[int]:
    """Return how many indices of each dimension stay."""
    return [size if mask is None else int(mask.sum()) for size, mask in zip(sizes, masks, strict=True)]


def _result_sizes(argument: str) -> Callable[[Node, Kept], None]:
    """Reshape and expand spell the sizes of their result."""

    def resize(node: Node, kept: Kept) -> None:
        set_argument(node, argument, remaining(spec(node).shape, kept[node.name]))

    return resize


def _operand_mask(node: Node, kept: Kept, dim: int) -> torch.Tensor | None:
    return kept[node.all_input_nodes[0].name][dim]


def _slice(node: Node, kept: Kept) -> None:
    args = arguments(node)
    mask = _operand_mask(node, kept, args["dim"])
    if mask is None:
        return
    start, end, step = slice(args["start"], args["end"], args["step"]).indices(len(mask))
    within = start % step
    set_argument(node, "start", int(mask[: start - within].sum()) + within)
    set_argument(node, "end", int(mask[:end].sum()))


def _pad(node: Node, kept: Kept) -> None:
    amounts = list(arguments(node)["pad"])
    last = len(spec(node).shape) - 1
    for dim, (before, after) in pad_amounts(node).items():
        outer, inner = kept[node.name][dim], _operand_mask(node, kept, dim)
        place = 2 * (last - dim)
        amounts[place] = _padding(before, outer, inner, front=True)
        amounts[place + 1] = _padding(after, outer, inner, front=False)
    set_argument(node, "pad", amounts)


def _padding(amount: int, outer: torch.Tensor | None, inner: torch.Tensor | None, *, front: bool) -> int:
    """Count what stays of the padding in the result, or of what is cut from the operand."""
    mask = outer if amount > 0 else inner
    if mask is None or not amount:
        return amount
    edge = mask[: abs(amount)] if front else mask[-abs(amount) :]
    return int(edge.sum()) if amount > 0 else -int(edge.sum())


def _roll(node: Node, kept: Kept) -> None:
    args = arguments(node)
    shifts = list(args["shifts"])
    for place, dim in enumerate(args["dims"]):
        mask = _operand_mask(node, kept, dim)
        if mask is not None:
            shift = shifts[place] % len(mask)
            shifts[place] = int(mask[len(mask) - shift :].sum())
    set_argument(node, "shifts", shifts)


def _groups(argument: str) -> Callable[[Node, Kept], None]:
    """Groups of channels that went as a whole no longer count."""

    def recount(node: Node, kept: Kept) -> None:
        groups = arguments(node)[argument]
        mask = _operand_mask(node, kept, 1 if argument == "num_groups" else -3)
        if mask is not None and groups > 1:
            rows = mask.view(groups, -1)
            whole = bool((rows.all(1) == rows.any(1)).all())
            set_argument(node, argument, int(rows.all(1).sum()) if whole else groups)

    return recount


def _layer_norm(node: Node, kept: Kept) -> None:
    rank = len(arguments(node)["normalized_shape"])
    set_argument(node, "normalized_shape", remaining(spec(node).shape, kept[node.name])[-rank:])


_SIZES: dict[OpOverload, Callable[[Node, Kept], None]] = {
    aten.reshape.default: _result_sizes("shape"),
    aten.expand.default: _result_sizes("size"),
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _pad,
    aten.roll.default: _roll,
    **{operator: _groups("groups") for operator in LAYERS if CONTRACTIONS[operator].grouped is not None},
    aten.group_norm.default: _groups("num_groups"),
    aten.layer_norm.default: _layer_norm,
}
"""The calls that spell sizes, and how those follow a removal; each is called before the call's spec is made anew."""

"""A model with units set to zero instead of removed: what a removal must be equal to.

Every removed element of every value, stored or computed, is zero. A sum over channels (a convolution, a linear layer,
a matrix product, a mean that counts what stays) then takes the others alone, which is what the smaller model computes;
element-wise operators look at nothing else. Where zeros would take part in what is taken over several channels, the
removed ones are left out: a maximum does not see them, and layer and group normalisation take the statistics of the
channels that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.running.compute import Values, compute
from lvc.compiler.running.run import Run
from lvc.passes.analysis.channel_groups import Channels, Removal
from lvc.passes.analysis.channels.proof import Kept, cut

BOUND = 1e-4
"""Largest relative difference between removed and zeroed channels."""

_NEUTRAL = {
    aten.amax.default: -torch.inf,
    aten.amin.default: torch.inf,
    aten.prod.dim_int: 1.0,
}
"""What an element must be so that a reduction does not see it, where that is not zero."""


class Masked:
    """Runs a model with all but the kept channels zero."""

    def __init__(self, model: Model, kept: Kept) -> None:
        order = [node for node in model.module.graph.nodes if node.op in ("call_function", "get_attr")]
        self.run = Run(model, instead=dict.fromkeys(order, self._masked))
        self._module = model.module
        self._kept = kept

    def kept(self, node: Node) -> tuple[torch.Tensor | None, ...]:
        """What stays of a value, dimension by dimension, as it is in a batch of the size that runs."""
        masks, calls, axis = self._kept[node.name], self.run.calls, self.run.axis(node)
        if calls is None or axis is None or (mask := masks[axis.dim]) is None:
            return tuple(masks)
        spread = axis.at(0).spread(mask, calls.batching.images, calls.images)
        return (*masks[: axis.dim], spread, *masks[axis.dim + 1 :])

    def _masked(self, node: Node, values: Values, calls: Calls | None) -> torch.Tensor:
        special = _SPECIAL.get(node.target) if isinstance(node.target, OpOverload) else None
        stored = tensor(self._module, node)
        if stored is not None:
            value = stored.detach()
        else:
            value = special(self, node, values) if special else compute(node, values, calls)
        return _fill(value, self.kept(node), 0)

    def over_kept(self, node: Node, values: Values) -> torch.Tensor:
        """Run what takes a mean over several channels on those that stay; zeros elsewhere."""
        args: dict[str, Any] = {
            name: cut(values[value], self.kept(value)) if isinstance(value, Node) else value
            for name, value in arguments(node).items()
        }
        if "normalized_shape" in args:
            args["normalized_shape"] = args["input"].shape[-len(args["normalized_shape"]) :]
        if "num_groups" in args:
            args["num_groups"] = _groups_left(args["num_groups"], self.kept(node)[1])
        return _put_back(node.target(**args), self.kept(node))  # type: ignore[operator]

    def without_removed(self, node: Node, values: Values) -> torch.Tensor:
        """Run a reduction that zeros would change with elements that it does not see in their place."""
        operand = node.all_input_nodes[0]
        filled = _fill(values[operand], self.kept(operand), _NEUTRAL[node.target])  # type: ignore[index]
        value: torch.Tensor = node.target(filled, *node.args[1:], **node.kwargs)  # type: ignore[operator]
        return value


_SPECIAL: dict[OpOverload, Callable[[Masked, Node, Values], torch.Tensor]] = {
    **dict.fromkeys((aten.mean.dim, aten.layer_norm.default, aten.group_norm.default), Masked.over_kept),
    **dict.fromkeys(_NEUTRAL, Masked.without_removed),
}


def _groups_left(groups: int, mask: torch.Tensor | None) -> int:
    """Return how many groups of channels still have one."""
    return groups if mask is None else int(mask.view(groups, -1).any(1).sum())


def _fill(value: torch.Tensor, masks: Sequence[torch.Tensor | None], element: float) -> torch.Tensor:
    for dim, mask in enumerate(masks):
        if mask is not None:
            value = value.index_fill(dim, (~mask).nonzero()[:, 0], element)
    return value


def _put_back(value: torch.Tensor, masks: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Undo a cut, with zeros for what was cut."""
    for dim, mask in enumerate(masks):
        if mask is not None:
            shape = [*value.shape[:dim], len(mask), *value.shape[dim + 1 :]]
            value = value.new_zeros(shape).index_copy(dim, mask.nonzero()[:, 0], value)
    return value


def run_masked(
    model: Model, channels: Channels, removal: Removal, inputs: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Run a model with units set to zero."""
    outputs = Masked(model, channels.kept(removal)).run(*map(torch.from_numpy, inputs))
    return tuple(output.numpy() for output in outputs)


def check_removal(before: Model, after: Model, channels: Channels, removal: Removal, seed: int = 0) -> float:
    """Return the largest relative difference between removed and zeroed channels on seeded inputs.

    ``channels`` are those of ``before``, and ``after`` is what `remove` made of it. `CheckError` beyond `BOUND`, unless
    double precision says that it is rounding, or if the signature is another.
    """
    if (before.inputs, before.outputs) != (after.inputs, after.outputs):
        raise CheckError("removing channels changed the model's signature")
    inputs = seeded_inputs(before.inputs, seed)
    difference = _difference(before, after, channels, removal, inputs)
    if difference > BOUND and _in_double(before, after, channels, removal, inputs) > BOUND:
        raise CheckError(
            f"the pruned model differs from one with zeroed channels by {difference:.2e} relative",
            why=f"removing channels is exact, so at most {BOUND:.0e} is rounding",
            help="a defect of lvc: a wrong channel was removed; leave groups out with skip= to find which",
        )
    return difference


def _difference(
    before: Model, after: Model, channels: Channels, removal: Removal, inputs: Sequence[np.ndarray]
) -> float:
    wanted = run_masked(before, channels, removal, inputs)
    return max(relative_difference(ours, theirs) for ours, theirs in zip(after(*inputs), wanted, strict=True))


def _in_double(
    before: Model, after: Model, channels: Channels, removal: Removal, inputs: Sequence[np.ndarray]
) -> float:
    """Return the same difference in double precision, infinite where a model is tied to single precision."""
    wide = [torch.from_numpy(array) for array in inputs]
    wide = [value.double() if value.is_floating_point() else value for value in wide]
    zeroed, removed = before.copy(), after.copy()
    zeroed.module.double(), removed.module.double()
    try:
        with torch.inference_mode():
            wanted = Masked(zeroed, channels.kept(removal)).run(*wide)
            found = removed.module(*wide)
    except RuntimeError:  # a cast to single precision inside the graph meets double weights
        return float("inf")
    return max(relative_difference(ours.numpy(), theirs.numpy()) for ours, theirs in zip(found, wanted, strict=True))

"""Operands beside each other: their images lie at the same places, and what is one for all images is spread."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.call import Call, Refusal, Step
from lvc.compiler.ir.graph import spec


def broadcast(call: Call, operands: Sequence[Node]) -> Step:
    """The step of a call that broadcasts its operands, whose last dimensions stand beside each other."""
    rank = len(call.shape)
    known = {
        axis.at(axis.dim + rank - len(spec(operand).shape))
        for operand in operands
        if (axis := call.axes[operand]) is not None
    }
    if len(known) > 1:
        raise Refusal("its operands have the images at different places")
    (axis,) = known
    if call.shape[axis.dim] != axis.size(call.batch):
        raise Refusal("it repeats the images")
    return Step(axis, spread=spread_to(call, axis, operands))


def spread_to(call: Call, axis: BatchAxis, operands: Sequence[Node]) -> dict[Node, BatchAxis]:
    """Return where operands that are one for all images need a part for each; sizes of 1 broadcast by themselves."""
    found = {}
    for operand in operands:
        shape = spec(operand).shape
        dim = axis.dim - len(call.shape) + len(shape)
        if call.axes[operand] is None and dim >= 0 and shape[dim] != 1:
            found[operand] = axis.at(dim)
    return found

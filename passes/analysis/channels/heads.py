"""Attention heads: which part of a split dimension is the heads', so that they can go as a whole.

Channels that are split into heads and the channels of one head can shrink either way. The heads are the part that
arrives at a matrix product as a batch dimension: each head has a product of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import family, is_call, spec

_SAME_SHAPE = (Family.ELEMENTWISE, Family.NORMALISATION)


def head_dimension(node: Node, dims: Sequence[int]) -> int | None:
    """Return which of these dimensions of a movement's result numbers heads; None if none of them does."""
    return next((dim for dim in dims if _numbers_products(node, dim)), None)


def _numbers_products(node: Node, dim: int) -> bool:
    """Whether a dimension of a value reaches a matrix product as one of its batch dimensions."""
    waiting, seen = [(node, dim, torch.arange(spec(node).shape[dim]))], {node}
    while waiting:
        value, dim, labels = waiting.pop()
        for user in value.users:
            if is_call(user, aten.matmul.default):
                if dim < len(spec(value).shape) - 2:
                    return True
            elif user not in seen:
                seen.add(user)
                waiting.extend(_follow(user, value, dim, labels))
    return False


def _follow(user: Node, value: Node, dim: int, labels: torch.Tensor) -> Iterator[tuple[Node, int, torch.Tensor]]:
    """Yield the result of a call with the one dimension that carries labels of its operand, if there is one."""
    from lvc.passes.analysis.channels.movement import move, varying

    if family(user) is Family.MOVEMENT and user.all_input_nodes == [value] and user.args[0] is value:
        moved = move(user, labels, dim)
        dims = varying(moved)
        if len(dims) == 1:
            yield user, dims[0], moved.movedim(dims[0], 0).reshape(moved.shape[dims[0]], -1)[:, 0]
    elif family(user) in _SAME_SHAPE and spec(user).shape == spec(value).shape:
        yield user, dim, labels

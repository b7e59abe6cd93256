"""A model whose graph stands for any number of images: the steps of its calls, and its calls for one number.

Loading bakes the size of the batch into shapes and cuts. Which dimension of each value counts images follows from the
inputs, whose first dimension does, call by call; where a size of one image leaves open which dimension that is, the
likeliest is taken first, and another if a later call cannot go on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.node import map_arg

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.batching.axis import BatchAxis, at_batch
from lvc.compiler.ir.batching.call import Refusal, Step
from lvc.compiler.ir.batching.rules import steps
from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.model import Model

HELP = "give the images one by one, or load the model for so many at once: --shape 8x3x224x224"
_MOST_TRIES = 20_000

Compute = Callable[..., torch.Tensor]


class BatchError(CompileError):
    """A model cannot take another number of images at once than it was loaded for."""


@dataclass(frozen=True)
class Calls:
    """The calls of a graph for one number of images."""

    batching: Batching
    images: int
    written: Mapping[Node, tuple[tuple[Any, ...], dict[str, Any]]]

    def compute(
        self, node: Node, values: Mapping[Node, torch.Tensor], by: Mapping[object, Compute] | None = None
    ) -> torch.Tensor:
        """Return the result of a call for those values of its operands; ``by`` computes operators in another way."""
        args, kwargs = self.written.get(node, (node.args, node.kwargs))
        read = partial(self._read, node, values)
        function: Any = (by or {}).get(node.target, node.target)
        result: torch.Tensor = function(*map_arg(args, read), **map_arg(kwargs, read))
        return result

    def part(self, node: Node, value: torch.Tensor, place: int) -> torch.Tensor:
        """Return what a value is for as many images as the graph was made for, the ``place``-th of such parts."""
        axis, size = self.batching.axis(node), self.batching.images
        return value if axis is None else axis.image(value, place * size, size)

    def _read(self, node: Node, values: Mapping[Node, torch.Tensor], operand: Node) -> torch.Tensor:
        value = values[operand]
        axis = self.batching.spread(node).get(operand)
        return value if axis is None else axis.spread(value, self.batching.images, self.images)


class Batching:
    """Where the images lie in every value of a model. `BatchError` if some call mixes them."""

    def __init__(self, model: Model) -> None:
        self.images = _images(model)
        self._steps = _solve(list(model.module.graph.nodes), self.images)

    def axis(self, node: Node) -> BatchAxis | None:
        """Where the images are in a value; None if it is one for all, as what the graph did not have before."""
        step = self._steps.get(node)
        return step.axis if step else None

    def spread(self, node: Node) -> Mapping[Node, BatchAxis]:
        """The operands of a call that are one value for all images, and where each needs its part."""
        step = self._steps.get(node)
        return step.spread if step else {}

    def calls(self, images: int) -> Calls:
        """The calls for so many images."""
        written = {
            node: _written(node, {name: at_batch(value, images) for name, value in step.literals.items()})
            for node, step in self._steps.items()
            if step.literals and images != self.images
        }
        return Calls(self, images, written)


def _images(model: Model) -> int:
    sizes = {value.name: value.spec.shape[0] if value.spec.shape else 0 for value in model.inputs}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        told = ", ".join(f"{name}: {size or 'none'}" for name, size in sizes.items()) or "none"
        raise BatchError("the inputs have no batch in common", why=f"their first dimensions are {told}", help=HELP)
    return next(iter(sizes.values()))


def _written(node: Node, literals: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with others of these names."""
    assert isinstance(node.target, OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    kwargs = {**dict(zip(names, node.args, strict=False)), **node.kwargs, **literals}
    args = []
    for name in names:
        if name not in kwargs:
            break
        args.append(kwargs.pop(name))
    return tuple(args), kwargs


def _solve(order: list[Node], images: int) -> dict[Node, Step]:
    """Find a step for each call that goes with those of all others."""
    found: dict[Node, Step] = {}
    choices: list[tuple[int, Iterator[Step]]] = []
    furthest: tuple[int, BatchError] | None = None
    at = tries = 0
    ways: Iterator[Step] | None = None
    while at < len(order):
        node = order[at]
        axes = {operand: found[operand].axis for operand in node.all_input_nodes}
        ways = _ways(node, axes, images) if ways is None else ways
        tries += 1
        try:
            found[node] = next(ways)
            choices.append((at, ways))
            at, ways = at + 1, None
            continue
        except (Refusal, StopIteration) as refusal:
            if isinstance(refusal, Refusal) and (furthest is None or at > furthest[0]):
                furthest = at, _refused(node, str(refusal))
        if not choices or tries > _MOST_TRIES:
            assert furthest is not None
            raise furthest[1]
        at, ways = choices.pop()
    return found


def _ways(node: Node, axes: dict[Node, BatchAxis | None], images: int) -> Iterator[Step]:
    if node.op == "placeholder":
        yield Step(BatchAxis(0))
    elif node.op == "call_function":
        yield from steps(node, axes, images)
    else:
        yield Step(None)


def _refused(node: Node, why: str) -> BatchError:
    return BatchError(
        f"'{node.name}' cannot take another number of images at once", where=origin(node), why=why, help=HELP
    )

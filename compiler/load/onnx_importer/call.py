"""One ONNX node on its way into the graph, as its converter sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch._ops import OpOverload

from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, dtype_of, shape_of


class Emitter(Protocol):
    """The part of the builder that a converter uses, through its `Call`.

    ``quantised`` remembers what was quantised by what, ``readers`` how many ONNX nodes read what a node became.
    """

    quantised: dict[torch.fx.Node, Any]
    readers: Counter[torch.fx.Node]

    def emit(
        self,
        overload: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        name: str,
        origin: str,
        fold: bool = True,
    ) -> Value: ...

    def branch(self, graph: Any, call: Call, given: Sequence[Value] = ()) -> list[Value]: ...

    def known(self, tensor: Any) -> Value | None: ...


@dataclass
class Call:
    """An ONNX node: operands already converted (None where omitted), attributes, opset, and the way to emit calls.

    ``outputs`` holds the names of its results, empty where omitted, and ``read`` those that somebody reads.
    """

    op: str
    name: str
    opset: int
    operands: list[Value | None]
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    read: frozenset[str]
    emitter: Emitter

    @property
    def origin(self) -> str:
        return f"node {self.name} ({self.op})"

    def __len__(self) -> int:
        return len(self.operands)

    def __getitem__(self, index: int) -> Value:
        """Return a required operand."""
        value = self.get(index)
        if value is None:
            raise ValueError(f"operand {index} is missing")
        return value

    def get(self, index: int) -> Value | None:
        """Return an operand, or None where the node leaves it out."""
        return self.operands[index] if index < len(self.operands) else None

    def all(self) -> list[Value]:
        """Return the operands of a variadic node."""
        return [self[index] for index in range(len(self.operands))]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        return shape_of(self[index])

    def rank(self, index: int = 0) -> int:
        return len(self.shape(index))

    def dtype(self, index: int = 0) -> torch.dtype:
        return dtype_of(self[index])

    def tensor(self, index: int, what: str) -> torch.Tensor:
        """Return the value of an operand that must be known while loading; ``what`` names it in the refusal."""
        value = self[index]
        if not isinstance(value, Constant):
            raise Unsupported(f"its {what} depends on the model's inputs")
        return value.tensor

    def ints(self, index: int, what: str) -> list[int]:
        return [int(item) for item in self.tensor(index, what).flatten().tolist()]

    def number(self, index: int, what: str, default: float = 0.0) -> float:
        """Return a scalar operand, or ``default`` where it is left out."""
        if self.get(index) is None:
            return default
        value: float = self.tensor(index, what).flatten()[0].item()
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def ints_or_attribute(self, index: int, name: str, since: int) -> list[int] | None:
        """Return the integers that are an attribute before an opset and an operand from then on; None if left out."""
        if self.opset >= since:
            return None if self.get(index) is None else self.ints(index, name)
        given = self.attribute(name)
        return None if given is None else [int(item) for item in given]

    def axis(self, default: int | None, rank: int | None = None) -> int:
        """Return the attribute ``axis`` counted from the front."""
        return self.places([self.attribute("axis", default)], rank)[0]

    def places(self, axes: Collection[int], rank: int | None = None) -> list[int]:
        """Return axes counted from the front, those of the first operand unless a rank is given."""
        rank = self.rank() if rank is None else rank
        outside = next((axis for axis in axes if not -rank <= axis < max(rank, 1)), None)
        if outside is not None:
            raise ValueError(f"axis {outside} does not exist in {rank} dimensions")
        return [int(axis) % rank if rank else 0 for axis in axes]

    def reads(self, index: int) -> bool:
        """Is this result of the node read by anybody?"""
        return index < len(self.outputs) and self.outputs[index] in self.read

    def check_fits(self, value: Value, shape: Sequence[int]) -> None:
        """Refuse an operand that does not broadcast to a shape, but only together with it."""
        given = shape_of(value)
        padded = (1,) * (len(shape) - len(given)) + given
        if len(given) > len(shape) or any(a not in (1, b) for a, b in zip(padded, shape, strict=True)):
            raise ValueError(f"an operand of shape {list(given)} does not broadcast to {list(shape)}")

    def emit(self, overload: OpOverload, *args: Any, **kwargs: Any) -> Value:
        """Add a call of the dialect and return its result; constants alone are computed at once."""
        return self.emitter.emit(overload, args, kwargs, name=self.name, origin=self.origin)

    def emit_unfolded(self, overload: OpOverload, *args: Any) -> Value:
        """Add a call even if all of its operands are constant."""
        return self.emitter.emit(overload, args, {}, name=self.name, origin=self.origin, fold=False)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Reshape unless the shape is that already."""
        if tuple(shape) == shape_of(value):
            return value
        return self.emit(torch.ops.aten.reshape.default, value, list(shape))

    def permute(self, value: Value, order: Sequence[int]) -> Value:
        """Permute the dimensions unless they are in order already."""
        if list(order) == list(range(len(order))):
            return value
        return self.emit(torch.ops.aten.permute.default, value, list(order))

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Convert the element type unless it is that already."""
        return value if dtype_of(value) == dtype else self.emit(torch.ops.aten.to.dtype, value, dtype)


Result = Value | Sequence[Value]
Converter = Callable[[Call], Result]
CONVERTERS: dict[str, Converter] = {}


def converts(*ops: str) -> Callable[[Converter], Converter]:
    """Register the function that converts these operators, named with their domain unless it is the standard one."""

    def register(function: Converter) -> Converter:
        for op in ops:
            assert op not in CONVERTERS, f"two converters for {op}"
            CONVERTERS[op] = function
        return function

    return register

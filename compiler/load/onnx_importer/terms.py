"""What the graph inside an ONNX node computes, as terms: to tell whether it is a known one, whatever its names are.

Terms that are equal are one object. `Identity` is none, constants are their values wherever they are stored, and
attributes are those that are not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import torch

from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, to_torch

Inputs = tuple["Term | None", ...]

_FEW = 1024
"""Elements up to which a constant is known by its values."""

_OF_NUMBERS: dict[str, Callable[[list[torch.Tensor], Mapping[str, Any]], torch.Tensor | None]] = {
    "Add": lambda x, _: x[0] + x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Cast": lambda x, given: x[0] if given.get("to") == onnx.TensorProto.INT64 else None,
    "Concat": lambda x, given: torch.cat(x) if given.get("axis") == 0 and all(part.ndim == 1 for part in x) else None,
    "Unsqueeze": lambda x, _: x[0].unsqueeze(0) if len(x) == 2 and x[1].tolist() == [0] else None,
    "Range": lambda x, _: torch.arange(int(x[1])) if _counts(*x) else None,
}


@dataclass(frozen=True, eq=False)
class Term:
    """An operator with its attributes and operands, None where one is left out; or a leaf, whose name is ``op``."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = ()
    value: Value | None = None


class Terms:
    """All terms of one comparison."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._made: dict[object, Term] = {}

    def hole(self, name: str) -> Term:
        """What stands for any leaf of a graph, the same one everywhere."""
        return self._once(("hole", name), lambda: Term(f"any {name}"))

    def leaf(self, name: str, value: Value | None = None) -> Term:
        if isinstance(value, Constant) and value.tensor.numel() <= _FEW:
            return self.constant(value.tensor)
        return self._once(("leaf", name if value is None else value), lambda: Term(name, value=value))

    def constant(self, value: object, dtype: torch.dtype = torch.int64) -> Term:
        stored = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=dtype)
        key = ("constant", stored.dtype, tuple(stored.shape), stored.flatten().tolist().__repr__())
        return self._once(key, lambda: Term("constant", value=Constant(stored)))

    def __call__(self, op: str, *inputs: Term | None, **attributes: Any) -> Term:
        """A term; what is computed of known integers is a constant, since exporters compute some of it."""
        if op == "Identity" and inputs[0] is not None:
            return inputs[0]
        numbers = [x.value.tensor for x in inputs if x is not None and isinstance(x.value, Constant)]
        if op in _OF_NUMBERS and len(numbers) == len(inputs) and all(x.dtype is torch.int64 for x in numbers):
            result = _OF_NUMBERS[op](numbers, attributes)
            if result is not None and result.numel() <= _FEW:
                return self.constant(result)
        inputs = inputs[: max((place for place, x in enumerate(inputs) if x is not None), default=-1) + 1]
        defaults = _defaults(op, self._opset)
        told = {name: value for name, value in attributes.items() if defaults.get(name) != _plain(value)}
        key = (op, tuple(sorted((name, repr(_plain(value))) for name, value in told.items())), inputs)
        return self._once(key, lambda: Term(op, told, inputs))

    def of(
        self, graph: gs.Graph, given: Mapping[str, Term], outside: Callable[[gs.Tensor], Value | None]
    ) -> list[Term]:
        """The terms of a graph's outputs; ``given`` are those of its inputs, ``outside`` knows what it reads around it.

        `Unsupported` where it has graphs or large tensors inside, or reads what is not known.
        """
        known: dict[str, Term | None] = {"": None, **given}

        def term(tensor: gs.Tensor) -> Term | None:
            if tensor.name not in known:
                stored = Constant(to_torch(tensor.values)) if isinstance(tensor, gs.Constant) else outside(tensor)
                if stored is None:
                    raise Unsupported("reads what could not be converted")
                known[tensor.name] = self.leaf(tensor.name, stored)
            return known[tensor.name]

        for node in graph.nodes:
            if any(map(_is_large, node.attrs.values())) or node.domain not in ("", None):
                raise Unsupported("has graphs, large tensors or operators of others inside")
            if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Tensor):
                made = self.constant(to_torch(node.attrs["value"].values))
            else:
                made = self(node.op, *map(term, node.inputs), **node.attrs)
            if len(node.outputs) != 1:
                raise Unsupported("has an operator of several results inside")
            known[node.outputs[0].name] = made
        found = [term(tensor) for tensor in graph.outputs]
        return [result for result in found if result is not None]

    def _once(self, key: object, make: Callable[[], Term]) -> Term:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def match(pattern: Term, term: Term, found: dict[str, Value]) -> bool:
    """Whether a term is that of a pattern, with what is known of the model in its holes, which is ``found``."""
    seen: set[tuple[Term, Term]] = set()

    def same(pattern: Term | None, term: Term | None) -> bool:
        if pattern is term or pattern is None or term is None:
            return pattern is term
        if pattern.op.startswith("any "):
            return term.value is not None and found.setdefault(pattern.op[4:], term.value) is term.value
        if (pattern, term) in seen:
            return True
        seen.add((pattern, term))
        return (
            bool(pattern.inputs)
            and (pattern.op, len(pattern.inputs)) == (term.op, len(term.inputs))
            and _all_plain(pattern.attributes) == _all_plain(term.attributes)
            and all(map(same, pattern.inputs, term.inputs))
        )

    return same(pattern, term)


def _counts(start: torch.Tensor, end: torch.Tensor, step: torch.Tensor) -> bool:
    return start.ndim == end.ndim == step.ndim == 0 and not start and step == 1 and 0 < int(end) <= _FEW  # type: ignore[return-value]


def _is_large(attribute: Any) -> bool:
    return isinstance(attribute, gs.Graph) or (isinstance(attribute, gs.Tensor) and attribute.values.size > _FEW)


def _all_plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    """An attribute as graph-surgeon or ONNX itself has it, as what can be compared."""
    if isinstance(value, gs.Tensor):
        return [str(value.dtype), value.values.tolist()]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return round(value, 6)
    return list(value) if isinstance(value, list | tuple) else value


def _defaults(op: str, opset: int) -> dict[str, Any]:
    if not onnx.defs.has(op):
        return {}
    given = onnx.defs.get_schema(op, opset).attributes
    return {
        name: _plain(onnx.helper.get_attribute_value(attribute.default_value))
        for name, attribute in given.items()
        if attribute.default_value.type
    }

"""Reading and editing a graph: the few operations on torch.fx that every pass needs.

Conventions, which `verify` checks: one ``get_attr`` node a stored tensor (so a weight is shared exactly when its node
has more than one user); ``node.meta["spec"]`` is the `TensorSpec` of the result; ``node.meta["origin"]`` says where
the node came from in the user's model.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import OPS, Family
from lvc.compiler.ir.marks import TF32
from lvc.compiler.ir.spec import TensorSpec

# what the Python source of a graph reads by these names
_RESERVED = frozenset(["self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree"])

_EMPTY = torch.nn.Module()

_FRESH = "fresh"  # key of the meta of a node that was made to take another's place, and has not done so yet

WINOGRAD = "winograd"
"""Key of a node's ``meta``: the largest tile of outputs with which a backend may compute this convolution by minimal
filtering."""

MARKS = (WINOGRAD, TF32)
"""Keys of integers in a node's ``meta`` that are kept with a model."""


def calls(graph: Graph, *overloads: OpOverload) -> Iterator[Node]:
    """Yield the operator calls in order: all of them, or those of the given overloads. Safe while nodes are erased."""
    for node in list(graph.nodes):
        if node.op == "call_function" and not node._erased and (not overloads or node.target in overloads):
            yield node


def can_name_input(name: str) -> bool:
    """Can an input have this name? It becomes an argument of the Python function that torch.fx writes."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in _RESERVED


def is_call(node: object, *overloads: OpOverload) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in overloads


def family(node: Node) -> Family | None:
    """Return what kind of operator a node calls; None for inputs, weights and the output."""
    op = OPS.get(node.target) if isinstance(node.target, OpOverload) else None
    return op.family if op else None


def spec(node: Node) -> TensorSpec:
    """Return shape and dtype of a node's result."""
    known: TensorSpec = node.meta["spec"]
    return known


def origin(node: Node) -> str:
    """Return where a node came from in the user's model: a module path, a source line or an ONNX node."""
    return node.meta.get("origin") or node.name


def op_name(node: Node) -> str:
    """Return the short name of the operator that a node calls."""
    op = OPS.get(node.target) if isinstance(node.target, OpOverload) else None
    return op.name if op else str(node.target)


def is_widening(node: object) -> bool:
    """Whether a node reads a shorter floating-point type as float32, which loses nothing and costs a kernel little."""
    if not is_call(node, torch.ops.aten.to.dtype):
        return False
    assert isinstance(node, Node)
    before, after = spec(node.all_input_nodes[0]).dtype, spec(node).dtype
    return after is torch.float32 and before.is_floating_point and before.itemsize < after.itemsize


def behind_widening(node: Node) -> Node:
    """The value that is stored: that behind a node which reads it as float32, else the node's own."""
    return node.all_input_nodes[0] if is_widening(node) else node


def arguments(node: Node) -> dict[str, Any]:
    """Return a call's arguments by the names of the operator's schema, defaults filled in: a pool that gives no stride
    has that of its window."""
    assert isinstance(node.target, OpOverload)
    values = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
    values.update(node.kwargs)
    for argument in node.target._schema.arguments:
        if argument.name not in values and argument.has_default_value():
            values[argument.name] = argument.default_value
    if "kernel_size" in values and not values["stride"]:
        values["stride"] = values["kernel_size"]
    return values


def set_argument(node: Node, name: str, value: Any) -> None:
    """Set one argument of a call by its name in the operator's schema; those before it are filled in."""
    assert isinstance(node.target, OpOverload)
    schema = node.target._schema.arguments
    at = next(place for place, argument in enumerate(schema) if argument.name == name)
    if schema[at].kwarg_only or name in node.kwargs:
        node.update_kwarg(name, value)
        return
    given = arguments(node)
    before = [given[argument.name] for argument in schema[:at]]
    node.args = (*before, value, *node.args[at + 1 :])
    node.kwargs = {key: kept for key, kept in node.kwargs.items() if key not in {a.name for a in schema[:at]}}


def tensor(module: GraphModule, node: object) -> torch.Tensor | None:
    """Return the stored tensor behind a ``get_attr`` node, or None for any other argument."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    owner, leaf = _owner(module, str(node.target))
    value = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
    assert isinstance(value, torch.Tensor)
    return value


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    """The module that holds a stored tensor of a dotted name, and the name there; much faster than ``getattr``."""
    *path, leaf = name.split(".")
    for part in path:
        inner = module._modules[part]
        assert inner is not None
        module = inner
    return module, leaf


def store(module: torch.nn.Module, name: str, value: torch.Tensor, *, trainable: bool | None = None) -> None:
    """Put a tensor into the module under a dotted name, in place of what was there.

    Floating-point tensors become parameters unless ``trainable`` says otherwise; all others become buffers.
    """
    *path, leaf = name.split(".")
    owner: torch.nn.Module = module
    for part in path:
        if not isinstance(getattr(owner, part, None), torch.nn.Module):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    if hasattr(owner, leaf):
        delattr(owner, leaf)
    if value.is_floating_point() if trainable is None else trainable:
        owner.register_parameter(leaf, torch.nn.Parameter(value.detach()))
    else:
        owner.register_buffer(leaf, value.detach())


def add_tensor(
    module: GraphModule, before: Node, hint: str, value: torch.Tensor, *, trainable: bool | None = None
) -> Node:
    """Store a new tensor under a free name near ``hint``; return the node that reads it, placed before ``before``."""
    name = free_name(module, hint)
    store(module, name, value, trainable=trainable)
    with module.graph.inserting_before(before):
        node = module.graph.create_node("get_attr", name)
    node.meta.update({"spec": TensorSpec.of(value), "origin": name, _FRESH: True})
    return node


def is_free(module: torch.nn.Module, name: str) -> bool:
    """Whether a tensor may be stored under a dotted name: nothing is hidden or replaced, and Python can read it."""
    first, _, rest = name.partition(".")
    if keyword.iskeyword(first) or first == "self":
        return False
    if not hasattr(module, first):
        return not rest or is_free(_EMPTY, rest)
    inner = module._modules.get(first)
    return bool(rest) and inner is not None and is_free(inner, rest)


def free_name(module: torch.nn.Module, hint: str) -> str:
    """Return the dotted name ``hint`` if it is free, and else a free one near it."""
    if is_free(module, hint):
        return hint
    parts = [part if is_free(_EMPTY, part) else f"{part}_" for part in hint.split(".")]
    if is_free(module, ".".join(parts)):
        return ".".join(parts)
    plain = "_".join(parts)
    return next(name for name in (f"{plain}_{number}" for number in count(1)) if is_free(module, name))


def insert_call(
    before: Node, overload: OpOverload, *args: Any, origin: str = "", name: str = "", **kwargs: Any
) -> Node:
    """Insert an operator call before a node, its spec propagated; its origin is that of ``before`` unless given.

    Unless ``name`` is given, or it takes the place of a node later, its name is that of ``before`` and the operator's.
    """
    name = name or f"{before.name}_{overload._schema.name.rpartition('::')[-1]}"
    with before.graph.inserting_before(before):
        node = before.graph.call_function(overload, args, kwargs, name=name)
    node.meta.update({"origin": origin or before.meta.get("origin", ""), _FRESH: True})
    node.meta["spec"] = infer_spec(node)
    return node


def replace(node: Node, by: Node) -> None:
    """Let every user of ``node`` read ``by`` instead, and erase ``node``.

    What was made by `insert_call` or `add_tensor` takes over the name and the origin, so that users find a value by the
    name that it had; what stood in the graph for a value of its own keeps its own.
    """
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
    if by.meta.pop(_FRESH, False):
        by.name = node.name
        by.meta["origin"] = origin(node)


def settle_names(graph: Graph) -> None:
    """End a rewrite: what was made and took no place is a value of its own from here on, and keeps its name."""
    for node in graph.nodes:
        node.meta.pop(_FRESH, None)


def infer_spec(node: Node) -> TensorSpec:
    """Compute a call's result spec from those of its operands, without data; `CompileError` if it cannot be called."""
    if family(node) is Family.QUANTISATION:  # torch has no shape function for these
        return spec(node.all_input_nodes[0])
    try:
        return _result_spec(node.target, _hashable(node.args), _hashable(tuple(node.kwargs.items())))
    except Exception as error:  # torch raises many types here, all of which mean the same
        raise CompileError(
            f"{op_name(node)} cannot take these operands",
            where=origin(node),
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
        ) from error


@dataclass(frozen=True)
class _Literal:
    """An argument that is no node. Its type counts: 1 and 1.0 are equal, and promote differently."""

    value: Any
    kind: type


def _hashable(value: Any) -> Any:
    """An argument as a key: specs for nodes, tuples for lists."""
    if isinstance(value, Node):
        return spec(value)
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return _Literal(value, type(value))


def _on_meta(key: Any) -> Any:
    """The argument of a key, on torch's device without data."""
    if isinstance(key, TensorSpec):
        return torch.empty(key.shape, dtype=key.dtype, device="meta")
    return key.value if isinstance(key, _Literal) else [_on_meta(part) for part in key]


@lru_cache(maxsize=8192)
def _result_spec(overload: OpOverload, args: Any, kwargs: Any) -> TensorSpec:
    """torch's own shape function; it takes a millisecond, and networks and passes ask for the same again and again."""
    result = overload(*_on_meta(args), **dict(map(_on_meta, kwargs)))
    assert isinstance(result, torch.Tensor), f"{overload} returns more than one tensor"
    return TensorSpec.of(result)


def erase_unread(module: GraphModule, operands: Iterable[Node]) -> None:
    """Erase those operands of a call that was replaced which are stored tensors and read by nobody else. Submodules
    that this leaves empty stay until `drop_unread_tensors`."""
    for operand in operands:
        if operand.op == "get_attr" and not operand.users:
            module.graph.erase_node(operand)
            owner, leaf = _owner(module, str(operand.target))
            delattr(owner, leaf)


def erase_left(module: GraphModule, operands: Iterable[Node]) -> None:
    """Erase those operands of a call that was replaced which nobody else reads, and what they alone read in turn."""
    for operand in operands:
        if operand.op == "call_function" and not operand.users and not operand._erased:
            read = operand.all_input_nodes
            module.graph.erase_node(operand)
            erase_left(module, read)
    erase_unread(module, (operand for operand in operands if not operand._erased))


def erase_dead(module: GraphModule) -> list[str]:
    """Erase calls and weights that nothing reads; return the names of the erased nodes. Inputs stay."""
    erased = []
    for node in reversed(list(module.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users:
            erased.append(node.name)
            module.graph.erase_node(node)
    if erased:
        drop_unread_tensors(module)
    return erased


def drop_unread_tensors(module: GraphModule) -> None:
    """Delete stored tensors that no node reads any more, and the submodules left empty."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name, owner in list(module.named_modules()):
        for leaf in [*owner._parameters, *owner._buffers]:
            if (f"{name}.{leaf}" if name else leaf) not in read:
                delattr(owner, leaf)
    for name, owner in reversed(list(module.named_modules())):
        if name and not owner._parameters and not owner._buffers and not owner._modules:
            parent, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(parent), leaf)

"""Is a model well formed? Structure, legality in the dialect, specs propagated again, conventions kept."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch._ops import OpOverload

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import FIXED, OPS
from lvc.compiler.ir.graph import arguments, infer_spec, is_call, op_name, origin, spec, tensor
from lvc.compiler.ir.groups import check_groups
from lvc.compiler.ir.layers import LAYERS, factors
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec


def verify(model: Model) -> None:
    """Raise `CompileError` that names the first node which breaks a rule of the IR."""
    graph = model.module.graph
    try:
        graph.lint()
    except Exception as error:
        raise CompileError("the graph is malformed", why=str(error).splitlines()[0]) from error
    seen: set[str] = set()
    for node in graph.nodes:
        if node.op == "output":
            parts = node.args[0]
            if not isinstance(parts, (tuple, list)) or len(parts) != len(model.output_names):
                raise _broken(node, "the output must be a tuple with one name for each part")
        elif node.op == "get_attr":
            if node.target in seen:
                raise _broken(node, f"'{node.target}' is read by a second node; a stored tensor has one node")
            seen.add(str(node.target))
            value = tensor(model.module, node)
            assert value is not None
            _compare(node, TensorSpec.of(value))
        elif node.op == "call_function":
            if node.target not in OPS:
                raise _broken(node, f"operator {op_name(node)} is not in the dialect")
            _check_fixed(node)
            _check_pairs(node)
            _check_weight(node)
            _compare(node, infer_spec(node))
        elif node.op != "placeholder":
            raise _broken(node, f"a node of kind {node.op} cannot stand in a graph")
        elif not isinstance(node.meta.get("spec"), TensorSpec):
            raise _broken(node, "the input has no spec")
    check_groups(graph)


def picture(model: Model) -> tuple[object, ...]:
    """Everything of a model that `verify` looks at, to be compared: it finds the same in two that are equal.

    Literals stand there as text, since 1 and 1.0 are equal, and not alike to an operator.
    """
    module = model.module
    nodes = [
        (n.op, n.name, n.target, repr(n.args), repr(n.kwargs), n.meta.get("spec"), n.meta.get("group"))
        for n in module.graph.nodes
    ]
    stored = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return tuple(model.output_names), nodes, [(name, value.shape, value.dtype) for name, value in stored]


def _check_fixed(node: torch.fx.Node) -> None:
    fixed = FIXED.get(node.target, {})  # type: ignore[call-overload]
    given = arguments(node) if fixed else {}
    for name, value in fixed.items():
        if given[name] is not value:
            raise _broken(node, f"{name}={given[name]} has no meaning in the dialect, only {name}={value} has")


def _check_pairs(node: torch.fx.Node) -> None:
    """What an operator wants of height and of width stands for each, though PyTorch takes one number for both."""
    assert isinstance(node.target, OpOverload)
    names = _pairs(node.target)
    given = arguments(node) if names else {}
    for name in names:
        value = given[name]
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise _broken(node, f"{name}={value} is not a pair, one number for height and one for width")


def _check_weight(node: torch.fx.Node) -> None:
    """The weight of a layer has an axis for the channels that it reads and one for those that it makes."""
    weight = factors(node)[1] if is_call(node, *LAYERS) else None
    if weight is not None and len(spec(weight).shape) < 2:
        raise _broken(node, f"its weight {spec(weight)} has no output channels; a product with a vector is matmul")


@lru_cache
def _pairs(overload: OpOverload) -> tuple[str, ...]:
    """The arguments of an operator that its schema calls ``int[2]``."""
    return tuple(argument.name for argument in overload._schema.arguments if getattr(argument, "N", None) == 2)


def _compare(node: torch.fx.Node, found: TensorSpec) -> None:
    if "spec" not in node.meta:
        raise _broken(node, "the node has no spec")
    if spec(node) != found:
        raise _broken(node, f"the node says {spec(node)}, and its operands give {found}")


def _broken(node: torch.fx.Node, why: str) -> CompileError:
    return CompileError(f"the graph breaks a rule at '{node.name}'", where=origin(node), why=why)

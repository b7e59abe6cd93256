"""The layers: every operator that multiplies and accumulates, and what its operands and their axes mean, stated once.

Passes, counts and backends ask here which operand is the weight, along which axes channels lie, into how many groups
they fall and how much a call computes, so that an operator with weights that comes later is one entry more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, set_argument, spec, store
from lvc.compiler.ir.operators import integer

Shape = tuple[int, ...]
ROWS, IMAGES = -1, -3


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """What holds for every call of one operator that multiplies ``data`` by ``weight``, which are named as its schema
    names them.

    ``axis`` holds the channels, of the data and of the result alike, counted from the end: `ROWS` or `IMAGES`. ``made``
    and ``read`` are the axes of the weight for the output channels and the input channels. In groups, the axis
    ``grouped`` of the weight has the channels of one group alone, and the other one those of all groups in turn.
    ``count`` gives the multiply-accumulates by the shapes of result, data and weight. ``integer`` is the operator that
    computes the same sums of 8-bit numbers; both are of one ``kind``.
    """

    operator: OpOverload
    kind: str
    data: str = "input"
    weight: str = "weight"
    bias: str | None = "bias"
    axis: int
    made: int = 0
    read: int = 1
    grouped: int | None = None
    count: Callable[[Shape, Shape, Shape], int]
    integer: OpOverload | None = None

    @property
    def is_integer(self) -> bool:
        """Whether it sums products of 8-bit numbers."""
        return self.operator in integer.OPERATORS

    @property
    def is_convolution(self) -> bool:
        """Whether its weight is a window that slides over images, or over what it makes of them."""
        return self.axis == IMAGES

    @property
    def is_matrix_product(self) -> bool:
        """Whether each place of the result is the product of a row of data with the weight as ``[out, columns]``.

        A transposed convolution is none: places of its result are sums over a part of its window.
        """
        return self.made == 0


def _windows_of_result(result: Shape, data: Shape, weight: Shape) -> int:
    """Each output element sums one window: input channels of its group times the kernel's area."""
    return math.prod(result) * math.prod(weight[1:])


def _windows_of_data(result: Shape, data: Shape, weight: Shape) -> int:
    """Each input element is spread over one window: output channels of its group times the kernel's area."""
    return math.prod(data) * math.prod(weight[1:])


def _rows(result: Shape, data: Shape, weight: Shape) -> int:
    """Each output element sums a row."""
    return math.prod(result) * data[-1]


_FLOATING = (
    Contraction(
        operator=aten.conv2d.default,
        kind="conv2d",
        axis=IMAGES,
        grouped=1,
        count=_windows_of_result,
        integer=integer.conv2d,
    ),
    Contraction(
        operator=aten.conv_transpose2d.input,
        kind="conv_transpose2d",
        axis=IMAGES,
        made=1,
        read=0,
        grouped=1,
        count=_windows_of_data,
    ),
    Contraction(operator=aten.linear.default, kind="linear", axis=ROWS, count=_rows, integer=integer.linear),
    Contraction(
        operator=aten.matmul.default,
        kind="matmul",
        data="self",
        weight="other",
        bias=None,
        axis=ROWS,
        made=-1,
        read=-2,
        count=_rows,
        integer=integer.matmul,
    ),
)
_INTEGER = (replace(entry, operator=entry.integer, integer=None) for entry in _FLOATING if entry.integer)

CONTRACTIONS: dict[OpOverload, Contraction] = {entry.operator: entry for entry in (*_FLOATING, *_INTEGER)}


def _operators(wanted: Callable[[Contraction], bool]) -> tuple[OpOverload, ...]:
    return tuple(entry.operator for entry in CONTRACTIONS.values() if wanted(entry))


FLOATING = _operators(lambda entry: not entry.is_integer)
"""The contractions of floating-point numbers."""

INTEGER = _operators(lambda entry: entry.is_integer)
"""The contractions of 8-bit numbers."""

LAYERS = _operators(lambda entry: not entry.is_integer and entry.bias is not None)
"""Those of them that have a weight and a bias, which training finds."""

MATRIX_LAYERS = tuple(operator for operator in LAYERS if CONTRACTIONS[operator].is_matrix_product)
"""The layers whose weight is a matrix with a row for each output channel."""

INTEGER_LAYERS = tuple(operator for operator in LAYERS if CONTRACTIONS[operator].integer)
"""The layers that an integer operator can take the place of."""

CONVOLUTIONS = _operators(lambda entry: entry.is_convolution)
"""All convolutions, of floating-point and of 8-bit numbers."""

PRODUCTS = _operators(lambda entry: not entry.is_convolution)
"""All products of rows with a matrix, of floating-point and of 8-bit numbers."""


def contraction(node: Node) -> Contraction:
    """Return the entry of the operator that a node calls; `KeyError` unless it is a contraction."""
    return CONTRACTIONS[node.target]  # type: ignore[index]


def factors(node: Node) -> tuple[Node, Node]:
    """Return the two operands that a contraction multiplies: data and weight, or two matrices."""
    entry, given = contraction(node), arguments(node)
    return given[entry.data], given[entry.weight]


def group_count(node: Node) -> int:
    """Return into how many groups the channels of a contraction fall; 1 for an operator that has none."""
    return 1 if contraction(node).grouped is None else int(arguments(node)["groups"])


def channel_dim(node: Node, value: Node | None = None) -> int:
    """Return the dimension of a contraction's result that holds its channels, or of a value that it reads as data."""
    return len(spec(node if value is None else value).shape) + contraction(node).axis


def is_depthwise(node: Node) -> bool:
    """Whether a node convolves each channel of data on its own, into one channel of its result."""
    entry = CONTRACTIONS.get(node.target) if isinstance(node.target, OpOverload) else None
    if entry is None or entry.is_integer or not (entry.is_convolution and entry.is_matrix_product):
        return False
    data, weight = factors(node)
    return bool(group_count(node) == spec(data).shape[entry.axis] == spec(weight).shape[entry.made] > 1)


def weight_node(layer: Node) -> Node:
    """Return the node of the tensor that a layer's weight is stored in, behind fake quantisation if there is some."""
    weight = factors(layer)[1]
    return weight if weight.op == "get_attr" else weight.all_input_nodes[0]


def set_bias(module: GraphModule, layer: Node, value: torch.Tensor) -> None:
    """Give a layer a bias: in place of the one that it has, or as a new tensor if it has none, or one that is computed
    or that others read."""
    old, weight = arguments(layer)["bias"], weight_node(layer)
    if old is not None and old.op == "get_attr" and len(old.users) == 1:
        store(module, str(old.target), value.to(spec(old).dtype))
        return
    hint = str(weight.target).removesuffix("weight") + "bias"
    set_argument(layer, "bias", add_tensor(module, layer, hint, value.to(spec(weight).dtype)))

"""Labels through contractions: a layer's weight makes its output channels and reads its input channels.

A convolution in ``g`` groups shrinks in one of two ways. By whole groups, when there are many narrow ones (depthwise
first of all): the inputs and outputs of a group go together, and ``g`` falls. By position, when there are few wide
ones: the same channels of each group go, in the input and in the output alike independently, and ``g`` stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.layers import CONVOLUTIONS, LAYERS, contraction, factors, group_count
from lvc.passes.analysis.channels.flow import Dim, Flow, Labels, rule
from lvc.passes.analysis.channels.pointwise import broadcast

POSITIONS = "a window slides over them"


def bias_of(flow: Flow, args: dict[str, object]) -> list[Dim]:
    return [] if args["bias"] is None else [flow.of(args["bias"])[-1]]


@rule(aten.linear.default)
def linear(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    weight, x = flow.of(args["weight"]), flow.of(args["input"])
    flow.join(x[-1], weight[-1])
    return (*x[:-1], flow.join(*weight[:-1], *bias_of(flow, args))) if len(weight) == 2 else x[:-1]


@rule(*(operator for operator in LAYERS if operator in CONVOLUTIONS))
def convolution(flow: Flow, node: Node) -> Sequence[Dim]:
    args, entry, groups = arguments(node), contraction(node), group_count(node)
    x, weight = map(flow.of, factors(node))
    for dim in (*x[-2:], *weight[2:]):
        flow.fix(dim, POSITIONS)
    if groups == 1:
        made = weight[entry.made]
        flow.join(x[entry.axis], weight[entry.read])
    else:
        made = (_grouped if entry.grouped == entry.read else _grouped_transposed)(flow, x[entry.axis], weight, groups)
    return (*x[: entry.axis], flow.join(made, *bias_of(flow, args)), POSITIONS, POSITIONS)


def _grouped(flow: Flow, x: Dim, weight: Labels, groups: int) -> Dim:
    made, read = weight[:2]
    if isinstance(made, str) or isinstance(read, str):
        return flow.fix_all(x, made, read)
    if groups >= min(len(read), len(made) // groups):
        flow.fix(read, "they are one group's, and groups go as a whole")
        return _whole_groups(flow, x, made, groups)
    flow.join(x, read.repeat(groups))
    flow.tie(made.view(groups, -1).T)
    return made


def _grouped_transposed(flow: Flow, x: Dim, weight: Labels, groups: int) -> Dim:
    read, made = weight[:2]
    if isinstance(made, str) or isinstance(read, str):
        return flow.fix_all(x, made, read)
    flow.join(x, read)
    if groups >= min(len(made), len(read) // groups):
        flow.fix(made, "they are one group's, and groups go as a whole")
        outputs = flow.partition.fresh(groups * len(made))
        return _whole_groups(flow, x, outputs, groups)
    flow.tie(read.view(groups, -1).T)
    return made.repeat(groups)


def _whole_groups(flow: Flow, x: Dim, made: torch.Tensor, groups: int) -> Dim:
    outputs = flow.tie(made.view(groups, -1))
    if isinstance(x, str):
        flow.fix(outputs, x)
        return x
    flow.join(flow.tie(x.view(groups, -1)), outputs)
    return made


@rule(aten.matmul.default)
def matmul(flow: Flow, node: Node) -> Sequence[Dim]:
    operands = [operand for operand in node.args if isinstance(operand, Node)]
    left, right = map(flow.of, operands)
    flow.join(left[-1], right[-1] if len(right) == 1 else right[-2])
    batch = [(flow.of(operand)[:-2], spec(operand).shape[:-2]) for operand in operands]
    return (*broadcast(flow, *batch), *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


@rule(aten.embedding.default)
def embedding(flow: Flow, node: Node) -> Sequence[Dim]:
    args = arguments(node)
    rows, width = flow.of(args["weight"])
    flow.fix(rows, "they are looked up by number")
    return (*flow.of(args["indices"]), width)

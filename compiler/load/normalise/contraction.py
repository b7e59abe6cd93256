"""Contraction: convolutions, those in one and three dimensions by those in two, `linear` and `matmul`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from lvc.compiler.ir.graph import is_call
from lvc.compiler.load.normalise.arithmetic import add, mul
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule
from lvc.compiler.load.normalise.composite import written
from lvc.compiler.load.normalise.movement import pad, reshape, unsqueeze
from lvc.compiler.load.normalise.volumes import conv3d, conv_transpose3d
from lvc.compiler.load.normalise.window_sizes import Sizes, pair

aten = torch.ops.aten


def conv2d(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Operand:
    if x.rank == 3:
        single = conv2d(b, unsqueeze(b, x, 0), weight, bias, stride, padding, dilation, groups)
        return reshape(b, single, single.shape[1:])
    return b.call(aten.conv2d.default, x, weight, bias, pair(stride), pair(padding), pair(dilation), groups)


def conv_transpose2d(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Operand:
    if x.rank == 3:
        options = (bias, stride, padding, output_padding, groups, dilation)
        single = conv_transpose2d(b, unsqueeze(b, x, 0), weight, *options)
        return reshape(b, single, single.shape[1:])
    sizes = [pair(stride), pair(padding), pair(output_padding), groups, pair(dilation)]
    return b.call(aten.conv_transpose2d.input, x, weight, bias, *sizes)


def _conv2d_padded_by_name(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Operand:
    if padding == "valid":
        return conv2d(b, x, weight, bias, stride, 0, dilation, groups)
    totals = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
    before = [total // 2 for total in totals]
    if all(total % 2 == 0 for total in totals):
        return conv2d(b, x, weight, bias, stride, before, dilation, groups)
    sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return conv2d(b, pad(b, x, sides), weight, bias, stride, 0, dilation, groups)


def _one_dimension(rule: Rule) -> Rule:
    """A rule on ``(N, C, L)`` from the rule on ``(N, C, 1, L)``; every size becomes that of the last dimension."""
    plain = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}

    def widened(name: str, value: object) -> object:
        if name not in plain or isinstance(value, str):
            return value
        last = value if isinstance(value, int) else value[-1]  # type: ignore[index]
        return [plain[name], last]

    def apply(names: Sequence[str], b: Builder, x: Operand, weight: Operand, rest: Sequence[object]) -> Operand:
        options = {name: widened(name, value) for name, value in zip(names, rest, strict=False)}
        result = rule(b, unsqueeze(b, x, -2), unsqueeze(b, weight, -2), **options)
        assert isinstance(result, Operand)
        return reshape(b, result, (*result.shape[:-2], result.shape[-1]))

    transposed = rule is conv_transpose2d
    middle = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
    names = ("bias", "stride", "padding", *middle)
    return lambda b, x, weight, *rest: apply(names, b, x, weight, rest)


def _convolution(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Operand:
    if weight.rank == 5:
        sizes = (output_padding, groups, dilation) if transposed else (dilation, groups)
        volume = written(b, conv_transpose3d if transposed else conv3d, x, weight, bias, stride, padding, *sizes)
        assert isinstance(volume, Operand)
        return volume
    if transposed:
        rule = conv_transpose2d if weight.rank == 4 else _one_dimension(conv_transpose2d)
        result = rule(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        rule = conv2d if weight.rank == 4 else _one_dimension(conv2d)
        result = rule(b, x, weight, bias, stride, padding, dilation, groups)
    assert isinstance(result, Operand)
    return result


def matmul(b: Builder, x: Operand, y: Operand) -> Operand:
    return b.call(aten.matmul.default, x, y)


def _linear(b: Builder, x: Operand, weight: Operand, *bias: Operand | None) -> Operand:
    """`linear` by a matrix; a vector in its place is the product with one, which leaves no channels."""
    if weight.rank == 2:
        return b.call(aten.linear.default, x, weight, *bias)
    product = matmul(b, x, weight)
    return next((add(b, product, shift) for shift in bias if shift is not None), product)


def _product(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x @ y`` of two matrices: `linear` where ``y`` is a transposed stored matrix."""
    if y.node is not None and is_call(y.node, aten.permute.default):
        stored = y.node.args[0]
        assert isinstance(stored, torch.fx.Node)
        if stored.op == "get_attr":
            return b.call(aten.linear.default, x, Operand(stored.meta["spec"], stored))
    return matmul(b, x, y)


def _addmm(b: Builder, bias: Operand, x: Operand, y: Operand, *, beta: float = 1, alpha: float = 1) -> Operand:
    product = _product(b, x, y)
    node = product.node
    if beta == alpha == 1 and bias.rank == 1 and node is not None and is_call(node, aten.linear.default):
        weight = node.args[1]
        assert isinstance(weight, torch.fx.Node)
        return b.call(aten.linear.default, x, Operand(weight.meta["spec"], weight), bias)
    product = product if alpha == 1 else mul(b, product, alpha)
    return add(b, product, bias, alpha=beta)


CONTRACTION: dict[OpOverload, Rule] = {
    aten.conv2d.default: conv2d,
    aten.conv2d.padding: _conv2d_padded_by_name,
    aten.conv1d.default: _one_dimension(conv2d),
    aten.conv1d.padding: _one_dimension(_conv2d_padded_by_name),
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.conv_transpose1d.default: _one_dimension(conv_transpose2d),
    aten.convolution.default: _convolution,
    aten._convolution.default: lambda b, *args: _convolution(b, *args[:9]),
    aten.linear.default: _linear,
    aten.mm.default: _product,
    aten.bmm.default: matmul,
    aten.mv.default: matmul,
    aten.dot.default: matmul,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.outer.default: lambda b, x, y: mul(b, unsqueeze(b, x, 1), unsqueeze(b, y, 0)),
    aten.linalg_matmul.default: matmul,
}

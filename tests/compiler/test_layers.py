"""The table of layers against PyTorch: what each entry says of axes, groups and counts, by running its operator."""

from __future__ import annotations

import pytest
import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import FlopCounterMode

from lvc.compiler.ir import layers
from lvc.compiler.ir.dialect import OPS, Family, aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.layers import CONTRACTIONS, Contraction
from lvc.compiler.ir.operators import integer
from lvc.compiler.measure.counts import macs

GROUPS = 2
SHAPES = {
    "conv2d": ((3, 6, 9, 7), (10, 3, 3, 2)),
    "conv_transpose2d": ((3, 6, 5, 7), (6, 5, 3, 2)),
    "linear": ((5, 3, 7), (11, 7)),
    "matmul": ((3, 5, 7), (3, 7, 11)),
}
"""Data and weight of each kind, in two groups where there can be some; no two axes that could be confused are alike."""

PAIRS = {"stride": [2, 3], "padding": [1, 0], "dilation": [1, 2], "output_padding": [1, 0]}


def operands(entry: Contraction) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    data, weight = SHAPES[entry.kind]
    if not entry.is_integer:
        return torch.randn(data, dtype=torch.float64), torch.randn(weight, dtype=torch.float64)
    return torch.randint(-9, 9, data, dtype=torch.int8), torch.randint(-9, 9, weight, dtype=torch.int8)


def run(entry: Contraction, data: torch.Tensor, weight: torch.Tensor, **more: object) -> torch.Tensor:
    schema = entry.operator._schema.arguments
    given = {entry.data: data, entry.weight: weight, **more}
    given |= {name: pair for name, pair in PAIRS.items() if any(a.name == name for a in schema)}
    given |= {"groups": GROUPS} if entry.grouped is not None else {}
    given |= {a.name: 0 for a in schema if a.name.startswith("zero")}
    given |= {a.name: None for a in schema if a.name == "bias" and "bias" not in given}
    result: torch.Tensor = entry.operator(**given)
    return result


def changed(before: torch.Tensor, after: torch.Tensor, axis: int) -> list[int]:
    """The places along an axis where two tensors differ."""
    differ = (before != after).movedim(axis, 0).flatten(1).any(1)
    return [int(place) for place in differ.nonzero()[:, 0]]


every_entry = pytest.mark.parametrize("entry", CONTRACTIONS.values(), ids=lambda entry: str(entry.operator))


def test_every_contraction_of_the_dialect_has_an_entry() -> None:
    assert set(CONTRACTIONS) == {op.overload for op in OPS.values() if op.family is Family.CONTRACTION}
    for operator, entry in CONTRACTIONS.items():
        names = {argument.name for argument in operator._schema.arguments}
        assert names >= {entry.data, entry.weight}
        assert ("bias" if "bias" in names else None) == entry.bias
        assert ("groups" in names) == (entry.grouped is not None)


@every_entry
def test_output_channels_lie_along_the_axes_of_the_table(entry: Contraction) -> None:
    """Another slice of the weight moves one channel of the result alone, in each group if it counts those of one."""
    data, weight = operands(entry)
    before, last = run(entry, data, weight), weight.shape[entry.made] - 1
    other = weight.clone()
    other.select(entry.made, last).add_(1)
    per_group = weight.shape[entry.made]
    channels = [group * per_group + last for group in range(GROUPS if entry.grouped == entry.made else 1)]
    assert changed(before, run(entry, data, other), entry.axis) == channels
    assert before.shape[entry.axis] == per_group * (GROUPS if entry.grouped == entry.made else 1)


@every_entry
def test_input_channels_lie_along_the_axes_of_the_table(entry: Contraction) -> None:
    """A channel of the data that is zero makes as much of its slice of the weight as a slice that is zero."""
    data, weight = operands(entry)
    size = data.shape[entry.axis]
    assert size == weight.shape[entry.read] * (GROUPS if entry.grouped == entry.read else 1)
    silent, lost = data.clone(), weight.clone()
    for group in range(GROUPS if entry.grouped == entry.read else 1):
        silent.select(entry.axis, group * weight.shape[entry.read] + 1).zero_()
    lost.select(entry.read, 1).zero_()
    found = run(entry, silent, weight)
    assert torch.equal(found, run(entry, data, lost))
    assert not torch.equal(found, run(entry, data, weight))


@every_entry
def test_channels_fall_into_groups_as_the_table_says(entry: Contraction) -> None:
    """The first input channel moves the output channels of the first group, and no others."""
    data, weight = operands(entry)
    other = data.clone()
    other.select(entry.axis, 0).add_(1)
    before = run(entry, data, weight)
    outputs = before.shape[entry.axis]
    expected = outputs if entry.grouped is None else outputs // GROUPS
    assert changed(before, run(entry, other, weight), entry.axis) == list(range(expected))


@pytest.mark.parametrize("entry", [entry for entry in CONTRACTIONS.values() if entry.bias], ids=lambda e: e.kind)
def test_the_bias_has_one_number_for_each_output_channel(entry: Contraction) -> None:
    data, weight = operands(entry)
    before = run(entry, data, weight)
    bias = torch.zeros(before.shape[entry.axis], dtype=torch.int32 if entry.is_integer else torch.float64)
    bias[4] = 1
    assert changed(before, run(entry, data, weight, bias=bias), entry.axis) == [4]


@pytest.mark.parametrize("operator", layers.FLOATING, ids=str)
def test_multiply_accumulates_are_those_that_pytorch_counts(operator: OpOverload) -> None:
    entry = CONTRACTIONS[operator]
    data, weight = operands(entry)
    with FlopCounterMode(display=False) as counter:
        result = run(entry, data, weight)
    assert entry.count(result.shape, data.shape, weight.shape) * 2 == counter.get_total_flops()


def test_an_integer_form_sums_what_its_operator_does() -> None:
    found = {operator: CONTRACTIONS[operator].integer for operator in layers.FLOATING}
    assert found == {
        aten.conv2d.default: integer.conv2d,
        aten.conv_transpose2d.input: None,
        aten.linear.default: integer.linear,
        aten.matmul.default: integer.matmul,
    }
    for operator, form in found.items():
        if form is not None:
            data, weight = operands(CONTRACTIONS[form])
            wanted = run(CONTRACTIONS[operator], data.double(), weight.double())
            assert torch.equal(run(CONTRACTIONS[form], data, weight).double(), wanted)


def test_kinds_of_layers() -> None:
    assert set(layers.LAYERS) == {aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default}
    assert layers.MATRIX_LAYERS == layers.INTEGER_LAYERS == (aten.conv2d.default, aten.linear.default)
    assert set(layers.CONVOLUTIONS) == {aten.conv2d.default, aten.conv_transpose2d.input, integer.conv2d}


TEXT = """model small(x: f32[2,4,6,6], y: f32[3,2,4])
  @deep.weight : f32[4,1,3,3]
  @two.weight : f32[8,1,3,3]
  @up.weight : f32[4,3,2,2]
  @line.weight : f32[5,4]
  %deep = conv2d(%x, @deep.weight, None, [1, 1], [1, 1], [1, 1], 4) : f32[2,4,6,6]
  %two = conv2d(%deep, @two.weight, None, [1, 1], [1, 1], [1, 1], 4) : f32[2,8,6,6]
  %up = conv_transpose2d(%x, @up.weight, None, [2, 2], [0, 0], [0, 0], 1) : f32[2,3,12,12]
  %line = linear(%y, @line.weight) : f32[3,2,5]
  return two=%two, up=%up, line=%line
"""


def test_a_node_is_asked_by_the_table() -> None:
    deep, two, up, line = found = list(calls(parse_model(TEXT).module.graph))
    assert [layers.group_count(node) for node in found] == [4, 4, 1, 1]
    assert [layers.channel_dim(node) for node in found] == [1, 1, 1, 2]
    assert [layers.is_depthwise(node) for node in found] == [True, False, False, False]
    assert [factor.target for factor in layers.factors(deep)] == ["x", "deep.weight"]
    assert layers.factors(two)[0] is deep
    assert macs(up) == 2 * 4 * 6 * 6 * 3 * 2 * 2
    assert macs(line) == 3 * 2 * 5 * 4

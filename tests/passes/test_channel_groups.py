"""Which channels go together, pattern by pattern, and that removing them equals setting them to zero."""

from __future__ import annotations

import pytest
import torch
from channel_harness import alike, made, pruned, shape, units

from lvc.compiler.errors import CheckError, CompileError, UsageError
from lvc.compiler.ir.dialect import OPS, aten
from lvc.compiler.ir.graph import calls, set_argument
from lvc.compiler.ir.graph_text import parse_model
from lvc.passes.analysis.channel_groups import Removal, Role, channel_groups
from lvc.passes.analysis.channels.flow import RULES
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.proof import Movement
from lvc.passes.analysis.channels.surgery import remove

PLAIN = """
    @a : f32[6,3,3,3]
    @gamma : f32[6]
    @mean : f32[6]
    @var : f32[6] = 0.5
    @b : f32[4,6,3,3]
    @bias : f32[4]
    %conv = conv2d(%x, @a)
    %norm = batch_norm(%conv, @gamma, None, @mean, @var, False, 0.1, 1e-05, True)
    %act = sigmoid(%norm)
    %last = conv2d(%act, @b, @bias)
    return y=%last
"""


def test_a_plain_chain() -> None:
    model = made(PLAIN)
    channels = channel_groups(model)
    first, last = channels.groups
    straight = list(range(6))
    assert units(channels, first.name) == alike(straight, "a:0", "gamma:0", "mean:0", "var:0", "b:1")
    assert [member.role for member in first.members] == [Role.PRODUCES, *[Role.SCALES] * 3, Role.CONSUMES]
    assert [carrier.node for carrier in first.carriers] == ["conv", "norm", "act"]
    assert all(carrier.units.tolist() == straight and carrier.dim == 1 for carrier in first.carriers)
    assert (first.fixed, last.fixed) == (None, "the output 'y' has them")
    after = pruned(model, {first.name: [1, 4]})
    assert torch.equal(after.module.b, model.module.b[:, [0, 2, 3, 5]])
    assert torch.equal(after.module.gamma, model.module.gamma[[0, 2, 3, 5]])
    assert isinstance(after.module.a, torch.nn.Parameter)
    assert (after.inputs, after.outputs) == (model.inputs, model.outputs)


PADDED_SHORTCUT = """
    @a : f32[4,3,3,3]
    @b : f32[8,4,3,3]
    @c : f32[5,8,1,1]
    %first = conv2d(%x, @a, None, [1, 1], [1, 1])
    %act = relu(%first)
    %second = conv2d(%act, @b, None, [2, 2], [1, 1])
    %rows = slice(%act, 2, 0, 8, 2)
    %corner = slice(%rows, 3, 0, 8, 2)
    %short = constant_pad_nd(%corner, [0, 0, 0, 0, 2, 2], 0.0)
    %sum = add(%second, %short)
    %last = conv2d(%sum, @c)
    return y=%last
"""


def test_a_padded_shortcut_meets_the_channel_that_it_is() -> None:
    """Channel i of the first layer is channel i + 2 of the second, whose others meet zeros."""
    model = made(PADDED_SHORTCUT)
    channels = channel_groups(model)
    both, alone = channels.free
    assert units(channels, both.name) == {
        "a:0": [0, 1, 2, 3],
        "b:1": [0, 1, 2, 3],
        "b:0": [-1, -1, 0, 1, 2, 3, -1, -1],
        "c:1": [-1, -1, 0, 1, 2, 3, -1, -1],
    }
    assert units(channels, alone.name) == alike([0, 1, -1, -1, -1, -1, 2, 3], "b:0", "c:1")
    after = pruned(model, {both.name: [1], alone.name: [0, 1, 3]})
    assert torch.equal(after.module.b, model.module.b[[2, 4, 5, 6]][:, [0, 2, 3]])
    (padding,) = (node for node in calls(after.module.graph) if node.name == "short")
    assert padding.args[1] == [0, 0, 0, 0, 0, 1]


ATTENTION = """
    model attention(x: f32[2,5,6])
      @embed.weight : f32[8,6]
      @token : f32[1,1,8]
      @position : f32[1,6,8]
      @norm.weight : f32[8]
      @norm.bias : f32[8]
      @qkv.weight : f32[24,8]
      @qkv.bias : f32[24]
      @proj.weight : f32[8,8]
      @scale : f32[8]
      @head.weight : f32[3,8]
      %embedded = linear(%x, @embed.weight)
      %tokens = expand(@token, [2, 1, 8])
      %joined = cat([%tokens, %embedded], 1)
      %placed = add(%joined, @position)
      %norm = layer_norm(%placed, [8], @norm.weight, @norm.bias)
      %qkv = linear(%norm, @qkv.weight, @qkv.bias)
      %apart = reshape(%qkv, [2, 6, 3, 2, 4])
      %turned = permute(%apart, [2, 0, 3, 1, 4])
      %q0 = slice(%turned, 0, 0, 1)
      %k0 = slice(%turned, 0, 1, 2)
      %v0 = slice(%turned, 0, 2, 3)
      %q = reshape(%q0, [2, 2, 6, 4])
      %k = reshape(%k0, [2, 2, 6, 4])
      %v = reshape(%v0, [2, 2, 6, 4])
      %kt = permute(%k, [0, 1, 3, 2])
      %scores = matmul(%q, %kt)
      %scaled = mul(%scores, 0.5)
      %weights = softmax(%scaled, -1)
      %mixed = matmul(%weights, %v)
      %back = permute(%mixed, [0, 2, 1, 3])
      %flat = reshape(%back, [2, 6, 8])
      %proj = linear(%flat, @proj.weight)
      %layer = mul(%proj, @scale)
      %sum = add(%placed, %layer)
      %first = slice(%sum, 1, 0, 1)
      %class = reshape(%first, [2, 8])
      %head = linear(%class, @head.weight)
      return y=%head
"""


def test_attention() -> None:
    """The width of the embedding is one group, tokens and positions included; the width of the heads another."""
    model = parse_model(ATTENTION)
    channels = channel_groups(model)
    embedding, heads = channels.free
    straight = list(range(8))
    wide = ["embed.weight:0", "token:2", "position:2", "norm.weight:0", "norm.bias:0", "qkv.weight:1", "proj.weight:0"]
    assert units(channels, embedding.name) == alike(straight, *wide, "scale:0", "head.weight:1")
    assert units(channels, heads.name) == {
        "qkv.weight:0": [0, 1, 2, 3] * 6,
        "qkv.bias:0": [0, 1, 2, 3] * 6,
        "proj.weight:1": [0, 1, 2, 3] * 2,
    }
    after = pruned(model, {embedding.name: [0, 5, 6], heads.name: [1]})
    assert shape(after, "qkv.weight") == (18, 5)
    assert shape(after, "apart") == (2, 6, 3, 2, 3)


def test_whole_heads() -> None:
    model = parse_model(ATTENTION)
    channels = channel_groups(model, heads=True)
    _, heads = channels.free
    first, second = [0] * 4, [1] * 4
    assert units(channels, heads.name) == {
        "qkv.weight:0": (first + second) * 3,
        "qkv.bias:0": (first + second) * 3,
        "proj.weight:1": first + second,
    }
    after = model.copy()
    remove(after, channels, {heads.name: [0]})
    check_removal(model, after, channels, {heads.name: [0]})
    assert shape(after, "scores") == (2, 1, 6, 6)


def test_a_product_with_a_stored_matrix_is_a_layer() -> None:
    model = parse_model("""
        model words(x: i64[2,5])
          @table : f32[7,4]
          @key : f32[4,6]
          @scale : f32[6] = 0.5
          @zero : i32[6] = 0
          @last : f32[6,3]
          %words = embedding(@table, %x)
          %keys = matmul(%words, @key)
          %grid = fake_quantize_per_channel_affine(%keys, @scale, @zero, 2, -8, 7)
          %product = matmul(%grid, @last)
          return y=%product
    """)
    channels = channel_groups(model)
    width, keys = channels.free
    assert units(channels, width.name) == alike([0, 1, 2, 3], "table:1", "key:0")
    assert units(channels, keys.name) == alike([0, 1, 2, 3, 4, 5], "key:1", "scale:0", "zero:0", "last:0")
    assert [(m.tensor, m.role) for m in keys.members if m.role is not Role.SCALES] == [
        ("key", Role.PRODUCES),
        ("last", Role.CONSUMES),
    ]
    after = model.copy()
    remove(after, channels, removal := {width.name: [3], keys.name: [0, 2]})
    check_removal(model, after, channels, removal)
    assert shape(after, "grid") == (2, 5, 4)


def test_an_operator_without_a_rule_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(PLAIN)
    channel_groups(model)
    monkeypatch.delitem(RULES, aten.sigmoid.default)
    assert [group.fixed for group in channel_groups(model)] == ["they go through sigmoid", "the output 'y' has them"]


def test_every_operator_of_the_dialect_has_a_rule() -> None:
    channel_groups(made(PLAIN))
    assert [op.name for overload, op in OPS.items() if overload.namespace == "aten" and overload not in RULES] == []


FIXED = {
    "they say where an image is sampled": "@a : f32[2,3,1,1]\n%c = conv2d(%x, @a)\n%p = permute(%c, [0, 2, 3, 1])\n"
    "%last = grid_sampler_2d(%x, %p, 0, 0, False)",
    "the input 'x' has them": "@a : f32[3,3,1,1]\n%c = conv2d(%x, @a)\n%sum = add(%c, %x)\n%last = mul(%sum, 2)",
    "softmax goes along them": "@a : f32[4,3,1,1]\n@b : f32[2,4,1,1]\n%c = conv2d(%x, @a)\n%s = softmax(%c, 1)\n"
    "%last = conv2d(%s, @b)",
    "argmax numbers them": "@a : f32[4,3,1,1]\n%c = conv2d(%x, @a)\n%s = argmax(%c, 1)\n%last = mul(%s, 2)",
    "there is only one": "@a : f32[1,3,1,1]\n@b : f32[2,1,1,1]\n%c = conv2d(%x, @a)\n%last = conv2d(%c, @b)",
    "they all hang together": "@a : f32[4,3,1,1]\n@b : f32[2,4,1,1]\n%c = conv2d(%x, @a)\n%r = roll(%c, [1], [1])\n"
    "%s = add(%c, %r)\n%last = conv2d(%s, @b)",
    "they are picked by number": "@a : f32[4,3,1,1]\n@i : i64[2] = 1\n@b : f32[2,2,1,1]\n%c = conv2d(%x, @a)\n"
    "%s = index_select(%c, 1, @i)\n%last = conv2d(%s, @b)",
    "they are mirrored at the border": "@a : f32[4,3,1,1]\n@b : f32[2,4,1,1]\n%c = conv2d(%x, @a)\n"
    '%p = permute(%c, [0, 2, 3, 1])\n%r = pad(%p, [1, 1, 0, 0], "reflect")\n%s = slice(%r, 3, 0, 4)\n'
    "%q = permute(%s, [0, 3, 1, 2])\n%last = conv2d(%q, @b)",
}


@pytest.mark.parametrize("reason", FIXED)
def test_what_cannot_shrink_has_a_reason(reason: str) -> None:
    channels = channel_groups(made(f"{FIXED[reason]}\nreturn y=%last"))
    assert [group.fixed for group in channels if any(member.tensor == "a" for member in group.producers)] == [reason]
    assert all(group.carriers == () for group in channels)


@pytest.mark.parametrize(
    ("removal", "what"),
    [
        ({"conv": range(6)}, "cannot remove 6 units of 'conv'"),
        ({"conv": [6]}, "cannot remove 1 units of 'conv'"),
        ({"conv": [-1]}, "cannot remove 1 units of 'conv'"),
        ({"last": [0]}, "no group of channels 'last' that can shrink"),
    ],
)
def test_wrong_removals_are_refused(removal: Removal, what: str) -> None:
    model = made(PLAIN)
    with pytest.raises(UsageError, match=what):
        remove(model, channel_groups(model), removal)


def test_the_check_finds_a_wrong_channel() -> None:
    model = made(PLAIN)
    channels = channel_groups(model)
    after = model.copy()
    remove(after, channels, {"conv": [1]})
    check_removal(model, after, channels, {"conv": [1]})
    with pytest.raises(CheckError, match="differs from one with zeroed channels"):
        check_removal(model, after, channels, {"conv": [2]})


def test_the_proof_finds_a_wrong_index_map() -> None:
    """One channel of padding is left before and two behind; the other way round has the right size and is wrong."""
    model = made(PADDED_SHORTCUT)
    channels = channel_groups(model)
    both, alone = (group.name for group in channels.free)
    removal = {both: [1], alone: [0]}
    after = model.copy()
    padding = next(node for node in calls(after.module.graph) if node.name == "short")
    movement = Movement(padding)
    remove(after, channels, removal)
    movement.prove(after, channels.kept(removal))
    set_argument(padding, "pad", [0, 0, 0, 0, 2, 1])
    with pytest.raises(CompileError, match="cannot be removed through constant_pad_nd"):
        movement.prove(after, channels.kept(removal))

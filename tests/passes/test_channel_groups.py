"""Which channels go together, pattern by pattern, and that removing them equals setting them to zero."""

from __future__ import annotations

import pytest
import torch

from lvc.compiler.dialect import OPS, aten
from lvc.compiler.errors import CheckError, CompileError, UsageError
from lvc.compiler.graph import calls, set_argument, spec
from lvc.compiler.graph_text import parse_model
from lvc.compiler.model import Model
from lvc.compiler.verify import verify
from lvc.passes.analysis.channel_groups import Channels, Removal, Role, channel_groups
from lvc.passes.analysis.channels.flow import RULES
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.proof import Movement
from lvc.passes.analysis.channels.surgery import remove

torch.set_num_threads(1)


def made(text: str) -> Model:
    """A model over an image of 3 channels, given its weights and calls."""
    return parse_model(f"model m(x: f32[2,3,8,8])\n{text}")


def units(channels: Channels, group: str) -> dict[str, list[int]]:
    """The unit of every index of a group's stored tensors, by tensor and dimension."""
    return {f"{member.tensor}:{member.dim}": member.units.tolist() for member in channels[group].members}


def alike(wanted: list[int], *places: str) -> dict[str, list[int]]:
    return dict.fromkeys(places, wanted)


def pruned(model: Model, removal: Removal) -> Model:
    """Remove units and check everything that can be checked."""
    channels = channel_groups(model)
    after = model.copy()
    changed = remove(after, channels, removal)
    verify(after)
    assert bool(changed) == any(len(gone) for gone in removal.values())
    shapes = channels.shapes(removal)
    assert all(spec(node).shape == shapes[node.name] for node in after.module.graph.nodes if node.op != "output")
    check_removal(model, after, channels, removal)
    assert max(float(abs(out).max()) for out in after(*[torch.randn(v.spec.shape) for v in after.inputs])) > 0
    return after


def shape(model: Model, name: str) -> tuple[int, ...]:
    return next(spec(node).shape for node in model.module.graph.nodes if name in (node.name, node.target))


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


CASES: dict[str, tuple[str, dict[str, list[int]], list[int]]] = {
    "concatenation": (
        """
        @a : f32[2,3,1,1]
        @b : f32[3,3,1,1]
        @c : f32[2,6,1,1]
        %left = conv2d(%x, @a)
        %right = conv2d(%x, @b)
        %one = slice(%x, 1, 1, 2)
        %all = cat([%right, %one, %left], 1)
        %last = conv2d(%all, @c)
        return y=%last
        """,
        {"b:0": [0, 1, 2], "c:1": [0, 1, 2, -1, -1, -1]},
        [0, 2],
    ),
    "split": (
        """
        @a : f32[6,3,1,1]
        @b : f32[2,3,1,1]
        @c : f32[2,3,1,1]
        %conv = conv2d(%x, @a)
        %left = slice(%conv, 1, 0, 3)
        %right = slice(%conv, 1, 3, 6)
        %up = conv2d(%left, @b)
        %down = conv2d(%right, @c)
        return up=%up, down=%down
        """,
        {"a:0": [0, 1, 2, -1, -1, -1], "b:1": [0, 1, 2]},
        [1],
    ),
    "channel shuffle": (
        """
        @a : f32[6,3,1,1]
        @b : f32[2,6,1,1]
        %conv = conv2d(%x, @a)
        %apart = reshape(%conv, [2, 2, 3, 8, 8])
        %turned = permute(%apart, [0, 2, 1, 3, 4])
        %mixed = reshape(%turned, [2, 6, 8, 8])
        %last = conv2d(%mixed, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 0, 1, 2], "b:1": [0, 0, 1, 1, 2, 2]},
        [1],
    ),
    "pixel shuffle": (
        """
        @a : f32[12,3,1,1]
        @b : f32[2,3,1,1]
        %conv = conv2d(%x, @a)
        %large = pixel_shuffle(%conv, 2)
        %last = conv2d(%large, @b)
        return y=%last
        """,
        {"a:0": [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], "b:1": [0, 1, 2]},
        [0],
    ),
    "depthwise": (
        """
        @a : f32[4,3,1,1]
        @d : f32[8,1,3,3]
        @b : f32[2,8,1,1]
        %conv = conv2d(%x, @a)
        %deep = conv2d(%conv, @d, None, [1, 1], [0, 0], [1, 1], 4)
        %last = conv2d(%deep, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 3], "d:0": [0, 0, 1, 1, 2, 2, 3, 3], "b:1": [0, 0, 1, 1, 2, 2, 3, 3]},
        [2, 3],
    ),
    "many narrow groups": (
        """
        @a : f32[8,3,1,1]
        @g : f32[8,2,3,3]
        @b : f32[2,8,1,1]
        %conv = conv2d(%x, @a)
        %group = conv2d(%conv, @g, None, [1, 1], [0, 0], [1, 1], 4)
        %last = conv2d(%group, @b)
        return y=%last
        """,
        alike([0, 0, 1, 1, 2, 2, 3, 3], "a:0", "g:0", "b:1"),
        [1],
    ),
    "few wide groups": (
        """
        @a : f32[6,3,1,1]
        @g : f32[6,3,3,3]
        @b : f32[2,6,1,1]
        %conv = conv2d(%x, @a)
        %group = conv2d(%conv, @g, None, [1, 1], [0, 0], [1, 1], 2)
        %last = conv2d(%group, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 0, 1, 2], "g:1": [0, 1, 2]},
        [1],
    ),
    "transposed": (
        """
        @a : f32[4,3,1,1]
        @t : f32[4,5,2,2]
        @b : f32[2,5,1,1]
        %conv = conv2d(%x, @a)
        %up = conv_transpose2d(%conv, @t, None, [2, 2])
        %last = conv2d(%up, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 3], "t:0": [0, 1, 2, 3]},
        [0],
    ),
    "transposed in groups": (
        """
        @a : f32[6,3,1,1]
        @t : f32[6,3,2,2]
        @b : f32[2,6,1,1]
        %conv = conv2d(%x, @a)
        %up = conv_transpose2d(%conv, @t, None, [2, 2], [0, 0], [0, 0], 2)
        %last = conv2d(%up, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 0, 1, 2], "t:0": [0, 1, 2, 0, 1, 2]},
        [2],
    ),
    "squeeze and excite": (
        """
        @a : f32[4,3,1,1]
        @s : f32[2,4,1,1]
        @e : f32[4,2,1,1]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %mean = mean(%conv, [2, 3], True)
        %less = conv2d(%mean, @s)
        %act = relu(%less)
        %more = conv2d(%act, @e)
        %gate = sigmoid(%more)
        %mul = mul(%gate, %conv)
        %last = conv2d(%mul, @b)
        return y=%last
        """,
        alike([0, 1, 2, 3], "a:0", "s:1", "e:0", "b:1"),
        [3],
    ),
    "flatten": (
        """
        @a : f32[3,3,1,1]
        @w : f32[5,12]
        %conv = conv2d(%x, @a)
        %pool = adaptive_avg_pool2d(%conv, [2, 2])
        %flat = reshape(%pool, [2, 12])
        %last = linear(%flat, @w)
        return y=%last
        """,
        {"a:0": [0, 1, 2], "w:1": [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]},
        [1],
    ),
    "group norm by whole groups": (
        """
        @a : f32[8,3,1,1]
        @g : f32[8]
        @b : f32[2,8,1,1]
        %conv = conv2d(%x, @a)
        %norm = group_norm(%conv, 4, @g)
        %last = conv2d(%norm, @b)
        return y=%last
        """,
        alike([0, 0, 1, 1, 2, 2, 3, 3], "a:0", "g:0", "b:1"),
        [0, 3],
    ),
    "group norm by position": (
        """
        @a : f32[6,3,1,1]
        @b : f32[2,6,1,1]
        %conv = conv2d(%x, @a)
        %norm = group_norm(%conv, 2)
        %last = conv2d(%norm, @b)
        return y=%last
        """,
        alike([0, 1, 2, 0, 1, 2], "a:0", "b:1"),
        [1],
    ),
    "a weight used twice": (
        """
        @a : f32[3,3,1,1]
        @b : f32[2,3,1,1]
        @w : f32[3,3,1,1]
        %first = conv2d(%x, @a)
        %once = conv2d(%first, @w)
        %act = relu(%once)
        %twice = conv2d(%act, @w)
        %last = conv2d(%twice, @b)
        return y=%last
        """,
        alike([0, 1, 2], "a:0", "w:0", "w:1", "b:1"),
        [1],
    ),
    "roll, flip and steps along channels": (
        """
        @a : f32[4,3,1,1]
        @b : f32[2,4,1,1]
        @c : f32[2,2,1,1]
        %conv = conv2d(%x, @a)
        %rolled = roll(%conv, [1], [1])
        %flipped = flip(%rolled, [1])
        %odd = slice(%conv, 1, 1, 4, 2)
        %last = conv2d(%flipped, @b)
        %more = conv2d(%odd, @c)
        return y=%last, z=%more
        """,
        {"a:0": [0, 0, 1, 1], "b:1": [1, 0, 0, 1], "c:1": [0, 1]},
        [0],
    ),
    "channels cut off by a negative padding": (
        """
        @a : f32[5,3,1,1]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %cut = constant_pad_nd(%conv, [1, 1, 1, 1, -2, 1], 3.0)
        %act = sigmoid(%cut)
        %last = conv2d(%act, @b)
        return y=%last
        """,
        {"a:0": [-1, -1, 0, 1, 2], "b:1": [0, 1, 2, -1]},
        [1],
    ),
    "statistics over channels": (
        """
        @a : f32[4,3,1,1]
        @s : f32[1,3,3,3]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %act = sigmoid(%conv)
        %mean = mean(%act, [1], True)
        %most = amax(%act, [1], True)
        %least = amin(%act, [1], True)
        %three = cat([%mean, %most, %least], 1)
        %where = conv2d(%three, @s, None, [1, 1], [1, 1])
        %mul = mul(%act, %where)
        %last = conv2d(%mul, @b)
        return y=%last
        """,
        alike([0, 1, 2, 3], "a:0", "b:1"),
        [0, 2],
    ),
    "parameters of each channel": (
        """
        @a : f32[4,3,1,1]
        @slope : f32[4]
        @scale : f32[4,1,1]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %act = prelu(%conv, @slope)
        %scaled = mul(%act, @scale)
        %norm = instance_norm(%scaled, None, None, None, None, True, 0.1, 1e-05, True)
        %last = conv2d(%norm, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 3], "slope:0": [0, 1, 2, 3], "scale:0": [0, 1, 2, 3], "b:1": [0, 1, 2, 3]},
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_index_maps(name: str) -> None:
    text, wanted, gone = CASES[name]
    model = made(text)
    channels = channel_groups(model)
    group = next(group for group in channels.free if units(channels, group.name) == wanted)
    pruned(model, {group.name: gone})
    everywhere = {each.name: range(each.size // 2) for each in channels.free}
    pruned(model, everywhere)


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

"""Index maps, pattern by pattern: which index of which tensor belongs to which unit."""

from __future__ import annotations

import pytest
from channel_harness import alike, made, pruned, units

from lvc.passes.analysis.channel_groups import channel_groups

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
    "sampling": (
        """
        @a : f32[4,3,1,1]
        @g : f32[2,3,1,1]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %flow = conv2d(%x, @g)
        %places = permute(%flow, [0, 2, 3, 1])
        %sampled = grid_sampler_2d(%conv, %places, 0, 0, False)
        %last = conv2d(%sampled, @b)
        return y=%last
        """,
        {"a:0": [0, 1, 2, 3], "b:1": [0, 1, 2, 3]},
        [0, 2],
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
    "one channel of several": (
        """
        @a : f32[4,3,1,1]
        @b : f32[2,4,1,1]
        %conv = conv2d(%x, @a)
        %one = slice(%conv, 1, 1, 2)
        %gate = sigmoid(%one)
        %mul = mul(%conv, %gate)
        %last = conv2d(%mul, @b)
        return y=%last
        """,
        alike([0, -1, 1, 2], "a:0", "b:1"),
        [0, 2],
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

"""Small random models whose channels are mixed in every way: for removing some of them."""

from __future__ import annotations

from hypothesis import strategies as st
from random_models import Shape, Writer

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model

_LAYERS = [
    *("conv", "conv", "wide", "wide", "depthwise", "up", "norm", "unary", "add", "add", "cat", "cat", "pool", "pad"),
    *("scale", "gate", "shuffle", "shuffle", "widen", "cut", "group_norm", "layer_norm", "turn", "flip", "attend"),
    *("pixels", "spread", "peak", "prelu"),
]


class ChannelWriter(Writer):
    """Starts with a layer of eight channels; every result is read by a last layer of its own."""

    layers = _LAYERS

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.shapes = {}
        stem = self.weight(8, 4, 1, 1)
        self.call(f"conv2d(%x, {stem})", (2, 8, 6, 6))

    def wide(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        made = self.draw(st.sampled_from([4, 6, 8, 12]))
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3, 4) if c % g == made % g == 0]))
        weight = self.weight(made, c // groups, 1, 1)
        self.call(f"conv2d(%{x}, {weight}, None, [1, 1], [0, 0], [1, 1], {groups})", (n, made, h, w))

    def depthwise(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        times = self.draw(st.integers(1, 2))
        weight = self.weight(c * times, 1, 3, 3)
        if c * times <= 16:
            self.call(f"conv2d(%{x}, {weight}, None, [1, 1], [1, 1], [1, 1], {c})", (n, c * times, h, w))

    def shuffle(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        groups = self.draw(st.sampled_from([g for g in (2, 3, 4) if c % g == 0]))
        apart = self.raw(f"reshape(%{x}, [{n}, {groups}, {c // groups}, {h}, {w}])")
        turned = self.raw(f"permute(%{apart}, [0, 2, 1, 3, 4])")
        self.call(f"reshape(%{turned}, [{n}, {c}, {h}, {w}])", shape)

    def widen(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        before, after = self.draw(st.sampled_from([(1, 1), (2, 0), (0, 2), (-1, 1), (2, -2)]))
        if c + before + after <= 16:
            self.call(f"constant_pad_nd(%{x}, [0, 0, 0, 0, {before}, {after}], 0.5)", (n, c + before + after, h, w))

    def cut(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        start, step = self.draw(st.integers(0, 2)), self.draw(st.integers(1, 2))
        size = len(range(start, c, step))
        if size % 2 == 0:
            self.call(f"slice(%{x}, 1, {start}, {c}, {step})", (n, size, h, w))

    def group_norm(self, x: str, shape: Shape) -> None:
        groups = self.draw(st.sampled_from([g for g in (1, 2, 4) if shape[1] % g == 0]))
        self.call(f"group_norm(%{x}, {groups}, {self.weight(shape[1])})", shape)

    def layer_norm(self, x: str, shape: Shape) -> None:
        channels = shape[1]
        last = self.raw(f"permute(%{x}, [0, 2, 3, 1])")
        normal = self.raw(f"layer_norm(%{last}, [{channels}], {self.weight(channels)})")
        self.call(f"permute(%{normal}, [0, 3, 1, 2])", shape)

    def turn(self, x: str, shape: Shape) -> None:
        self.call(f"roll(%{x}, [{self.draw(st.integers(-2, 2))}, 1], [1, 3])", shape)

    def flip(self, x: str, shape: Shape) -> None:
        self.call(f"flip(%{x}, [1])", shape)

    def attend(self, x: str, shape: Shape) -> None:
        """Each position looks at all, by two heads."""
        n, c, h, w = shape
        heads = self.raw(f"reshape(%{x}, [{n}, 2, {c // 2}, {h * w}])")
        turned = self.raw(f"permute(%{heads}, [0, 1, 3, 2])")
        scores = self.raw(f"matmul(%{turned}, %{heads})")
        weights = self.raw(f"softmax(%{scores}, -1)")
        mixed = self.raw(f"matmul(%{heads}, %{weights})")
        self.call(f"reshape(%{mixed}, [{n}, {c}, {h}, {w}])", shape)

    def pixels(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        if c % 8 == 0 and h * w < 64:
            self.call(f"pixel_shuffle(%{x}, 2)", (n, c // 4, 2 * h, 2 * w))
        elif h % 2 == w % 2 == 0 and c <= 4:
            self.call(f"pixel_unshuffle(%{x}, 2)", (n, 4 * c, h // 2, w // 2))

    def spread(self, x: str, shape: Shape) -> None:
        """One mean for all channels, copied to each."""
        mean = self.raw(f"mean(%{x}, [1], True)")
        copies = self.raw(f"expand(%{mean}, {list(shape)})")
        self.call(f"sub(%{x}, %{copies})", shape)

    def peak(self, x: str, shape: Shape) -> None:
        most = self.raw(f"amax(%{x}, [1], True)")
        self.call(f"sub(%{x}, %{most})", shape)

    def prelu(self, x: str, shape: Shape) -> None:
        self.call(f"prelu(%{x}, {self.weight(shape[1])})", shape)

    def text(self) -> str:
        names = [*self.shapes][-2:]
        heads = []
        for name in names:
            channels = self.shapes[name][1]
            weight = self.weight(2, channels, 1, 1)
            heads.append(self.raw(f"conv2d(%{name}, {weight})"))
        outputs = ", ".join(f"out{place}=%{head}" for place, head in enumerate(heads))
        return "\n".join(["model random(x: f32[2,4,6,6])", *self.weights, *self.calls, f"return {outputs}"])


@st.composite
def models(draw: st.DrawFn, layers: int = 8) -> Model:
    """A random model of at most so many layers, with one or two outputs."""
    writer = ChannelWriter(draw)
    for _ in range(draw(st.integers(1, layers))):
        writer.layer()
    return parse_model(writer.text())

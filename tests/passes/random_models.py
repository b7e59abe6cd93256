"""Small random models as hypothesis draws them: images of few channels through layers in any order."""

from __future__ import annotations

from hypothesis import strategies as st

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model

Shape = tuple[int, int, int, int]

_UNARY = ["relu", "sigmoid", "silu", "hardswish", "neg", "relu", "relu"]
_LAYERS = [
    *(
        "conv",
        "conv",
        "conv",
        "up",
        "norm",
        "norm",
        "norm",
        "unary",
        "unary",
        "add",
        "add",
        "cat",
        "pool",
        "pad",
        "pad",
    ),
    *("clamp", "dropout", "reshape", "permute", "slice", "neutral", "scale", "gate", "cast"),
]


class Writer:
    """Writes a model as text, layer by layer; remembers the shape of every value."""

    layers = _LAYERS

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.weights: list[str] = []
        self.calls: list[str] = []
        self.shapes: dict[str, Shape] = {"x": (2, 4, 6, 6)}

    def layer(self) -> None:
        kind = self.draw(st.sampled_from(self.layers))
        value = self.draw(st.sampled_from(list(self.shapes)[-3:]))
        getattr(self, kind)(value, self.shapes[value])

    def call(self, text: str, shape: Shape) -> str:
        name = f"v{len(self.calls)}"
        self.calls.append(f"%{name} = {text}")
        self.shapes[name] = shape
        return name

    def raw(self, text: str) -> str:
        """A call whose result other layers do not see."""
        name = f"v{len(self.calls)}"
        self.calls.append(f"%{name} = {text}")
        return name

    def weight(self, *shape: int, kind: str = "w", literal: str = "") -> str:
        """A new weight, or sometimes one of before that has this shape, so that some are shared or equal."""
        end = f" : f32[{','.join(map(str, shape))}]{literal}"
        known = [line.split(" ")[0] for line in self.weights if line.startswith(f"@{kind}") and line.endswith(end)]
        if known and self.draw(st.integers(0, 3)) == 0:
            return str(known[0])
        name = f"@{kind}{len(self.weights)}.{'var' if kind == 'var' else 'value'}"
        self.weights.append(name + end)
        return name

    def conv(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        kernel, groups = self.draw(st.sampled_from([1, 3])), self.draw(st.sampled_from([1, 2]))
        padding = self.draw(st.integers(0, 1))
        if min(h, w) + 2 * padding < kernel:
            return
        weight = self.weight(4, c // groups, kernel, kernel)
        bias = self.weight(4) if self.draw(st.booleans()) else "None"
        grown = 2 * padding - kernel + 1
        text = f"conv2d(%{x}, {weight}, {bias}, [1, 1], [{padding}, {padding}], [1, 1], {groups})"
        self.call(text, (n, 4, h + grown, w + grown))

    def up(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        if h * w < 64:
            weight = self.weight(c, 2, 2, 2)
            self.call(f"conv_transpose2d(%{x}, {weight}, None, [2, 2], [0, 0], [0, 0], 2)", (n, 4, 2 * h, 2 * w))

    def norm(self, x: str, shape: Shape) -> None:
        c = shape[1]
        literal = " = 0.0" if self.draw(st.booleans()) else ""
        mean, var = self.weight(c, kind="mean", literal=literal), self.weight(c, kind="var")
        gamma = self.weight(c) if self.draw(st.booleans()) else "None"
        self.call(f"batch_norm(%{x}, {gamma}, None, {mean}, {var}, False, 0.1, 1e-05, True)", shape)

    def unary(self, x: str, shape: Shape) -> None:
        self.call(f"{self.draw(st.sampled_from(_UNARY))}(%{x})", shape)

    def clamp(self, x: str, shape: Shape) -> None:
        low, high = self.draw(st.sampled_from([(0, 6), (-1, 1), (0.5, 2.0), (None, 0), (1, None)]))
        self.call(f"clamp(%{x}, {low}, {high})", shape)

    def add(self, x: str, shape: Shape) -> None:
        other = self.draw(st.sampled_from([name for name, known in self.shapes.items() if known == shape]))
        self.call(f"add(%{x}, %{other})", shape)

    def cat(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        fitting = [k for k, known in self.shapes.items() if known[2:] == (h, w) and known[1] + c <= 8]
        if fitting:
            other = self.draw(st.sampled_from(fitting))
            self.call(f"cat([%{x}, %{other}], 1)", (n, c + self.shapes[other][1], h, w))

    def pool(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        kind, size = self.draw(st.sampled_from(["max_pool2d", "avg_pool2d"])), self.draw(st.integers(1, 3))
        if min(h, w) >= size:
            self.call(f"{kind}(%{x}, [{size}, {size}], [1, 1])", (n, c, h - size + 1, w - size + 1))

    def pad(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        a, b = self.draw(st.sampled_from([(0, 0), (1, 1), (1, 1), (0, 1)]))
        value = self.draw(st.sampled_from(["0.0", "0.0", "1.0"]))
        if h * w < 144:
            self.call(f"constant_pad_nd(%{x}, [{a}, {b}, {a}, {b}], {value})", (n, c, h + a + b, w + a + b))

    def dropout(self, x: str, shape: Shape) -> None:
        self.call(f"dropout(%{x}, 0.5, False)", shape)

    def cast(self, x: str, shape: Shape) -> None:
        self.call(f"to(%{x}, f32)", shape)

    def reshape(self, x: str, shape: Shape) -> None:
        n, c, h, w = shape
        self.call(f"reshape(%{x}, [{n}, {c}, {w}, {h}])", (n, c, w, h))

    def permute(self, x: str, shape: Shape) -> None:
        order = self.draw(st.permutations([0, 2, 3]))
        dims = [order[0], 1, *order[1:]]
        n, c, h, w = (shape[dim] for dim in dims)
        self.call(f"permute(%{x}, {dims})", (n, c, h, w))

    def slice(self, x: str, shape: Shape) -> None:
        end = self.draw(st.sampled_from([shape[2], 9223372036854775807, max(1, shape[2] - 1)]))
        self.call(f"slice(%{x}, 2, 0, {end})", (shape[0], shape[1], min(shape[2], end), shape[3]))

    def neutral(self, x: str, shape: Shape) -> None:
        self.call(self.draw(st.sampled_from([f"add(%{x}, 0)", f"mul(%{x}, 1)", f"div(%{x}, 1.0)"])), shape)

    def scale(self, x: str, shape: Shape) -> None:
        weight = self.weight(1, shape[1], 1, 1)
        self.calls.append(f"%c{len(self.calls)} = sigmoid({weight})")
        self.call(f"mul(%{x}, %c{len(self.calls) - 1})", shape)

    def gate(self, x: str, shape: Shape) -> None:
        self.calls.append(f"%m{len(self.calls)} = mean(%{x}, [2, 3], True)")
        self.calls.append(f"%s{len(self.calls)} = sigmoid(%m{len(self.calls) - 1})")
        self.call(f"mul(%{x}, %s{len(self.calls) - 1})", shape)

    def text(self) -> str:
        names = list(self.shapes)
        extra = self.draw(st.sampled_from(names))
        shape = ",".join(map(str, self.shapes["x"]))
        lines = [
            f"model random(x: f32[{shape}])",
            *self.weights,
            *self.calls,
            f"return out=%{names[-1]}, more=%{extra}",
        ]
        return "\n".join(lines)


@st.composite
def models(draw: st.DrawFn, layers: int = 12) -> Model:
    """A random model of at most so many layers, with two outputs."""
    writer = Writer(draw)
    for _ in range(draw(st.integers(1, layers))):
        writer.layer()
    return parse_model(writer.text())

"""The windows of a convolution over images."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.nest import Expr
from lvc.backends.tvm.operands import zero_edges
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import arguments, spec


@dataclass(frozen=True)
class Windows:
    """``padding`` is (top, left, bottom, right)."""

    batch: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def out_height(self) -> int:
        return self._outputs(0, self.height)

    @property
    def out_width(self) -> int:
        return self._outputs(1, self.width)

    @property
    def pixels(self) -> int:
        """Of the result, of all images."""
        return self.batch * self.out_height * self.out_width

    def _outputs(self, axis: int, size: int) -> int:
        padded = size + self.padding[axis] + self.padding[axis + 2]
        return (padded - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    def corner(self, y: Expr, x: Expr) -> tuple[Expr, Expr]:
        """The row and column of the first tap, which may lie outside."""
        return y * self.stride[0] - self.padding[0], x * self.stride[1] - self.padding[1]

    def offset(self, tap: Expr) -> tuple[Expr, Expr]:
        """How far a tap is from the first one."""
        if self.taps == 1:
            return tirx.const(0, "int32"), tirx.const(0, "int32")
        return (
            tirx.floordiv(tap, self.kernel[1]) * self.dilation[0],
            tirx.floormod(tap, self.kernel[1]) * self.dilation[1],
        )

    def place(self, y: Expr, x: Expr, tap: Expr) -> tuple[Expr, Expr]:
        """The row and column of a tap, which may lie outside."""
        (top, left), (down, across) = self.corner(y, x), self.offset(tap)
        return top + down, left + across

    def is_inside(self, y: Expr, x: Expr) -> Expr:
        """Whether a place is one of the image."""
        return tirx.all(y >= 0, y < self.height, x >= 0, x < self.width)

    def source(self, y: Expr, x: Expr) -> tuple[Expr, Expr]:
        """The row and column of the image at a place."""
        return y, x

    @property
    def phases(self) -> int:
        """Results that are made of the same window, with other weights each."""
        return 1

    @property
    def result(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        return self.out_height, self.out_width

    def made(self, y: Expr, x: Expr, phase: Expr) -> tuple[Expr, Expr, list[Expr]]:
        """The row and column of the result that a window makes in a phase, and the conditions under which it is one."""
        return y, x, []

    def making(self, row: Expr, column: Expr) -> tuple[Expr, Expr, Expr]:
        """The window, by its row and column, and the phase that make a result."""
        return row, column, tirx.const(0, "int32")


@dataclass(frozen=True)
class SpreadWindows(Windows):
    """Those of a transposed convolution: its pixels lie ``stride`` apart, and taps go back from a place of the result.
    ``added`` are the rows and columns of the result behind what the image reaches."""

    added: tuple[int, int] = (0, 0)

    def _outputs(self, axis: int, size: int) -> int:
        reached = (size - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return reached - self.padding[axis] - self.padding[axis + 2] + self.added[axis]

    def corner(self, y: Expr, x: Expr) -> tuple[Expr, Expr]:
        return y + self.padding[0], x + self.padding[1]

    def offset(self, tap: Expr) -> tuple[Expr, Expr]:
        down, across = super().offset(tap)
        return 0 - down, 0 - across

    def is_inside(self, y: Expr, x: Expr) -> Expr:
        down, across = self.stride
        last = (self.height - 1) * down, (self.width - 1) * across
        conditions = [y >= 0, y <= last[0], x >= 0, x <= last[1]]
        conditions += [tirx.EQ(tirx.floormod(at, step), 0) for at, step in ((y, down), (x, across)) if step > 1]
        return tirx.all(*conditions)

    def source(self, y: Expr, x: Expr) -> tuple[Expr, Expr]:
        return tirx.floordiv(y, self.stride[0]), tirx.floordiv(x, self.stride[1])


@dataclass(frozen=True)
class PhasedWindows(Windows):
    """Those of a transposed convolution whose pixels lie ``steps`` apart, without the taps that fall between them: of a
    result at ``t``, counted with the padding before it, taps ``t % step``, that and ``step``, and so on, meet the
    pixels from ``t // step`` back. So a window makes ``steps`` results, its phases, of the same pixels by other taps.
    ``kernel`` is what taps a phase has, ``shape`` that of the result."""

    steps: tuple[int, int] = (1, 1)
    shape: tuple[int, int] = (1, 1)

    @property
    def phases(self) -> int:
        return self.steps[0] * self.steps[1]

    @property
    def result(self) -> tuple[int, int]:
        return self.shape

    @property
    def begin(self) -> tuple[int, int]:
        """Where the first window begins."""
        return self.padding[0] // self.steps[0], self.padding[1] // self.steps[1]

    def _outputs(self, axis: int, size: int) -> int:
        return (self.shape[axis] - 1 + self.padding[axis]) // self.steps[axis] - self.begin[axis] + 1

    def corner(self, y: Expr, x: Expr) -> tuple[Expr, Expr]:
        return y + self.begin[0], x + self.begin[1]

    def offset(self, tap: Expr) -> tuple[Expr, Expr]:
        down, across = super().offset(tap)
        return 0 - down, 0 - across

    def made(self, y: Expr, x: Expr, phase: Expr) -> tuple[Expr, Expr, list[Expr]]:
        at, remainders = self.corner(y, x), (tirx.floordiv(phase, self.steps[1]), tirx.floormod(phase, self.steps[1]))
        row, column = (
            start * step + remainder - before
            for start, step, remainder, before in zip(at, self.steps, remainders, self.padding[:2], strict=True)
        )
        return row, column, [row >= 0, row < self.shape[0], column >= 0, column < self.shape[1]]

    def making(self, row: Expr, column: Expr) -> tuple[Expr, Expr, Expr]:
        t = row + self.padding[0], column + self.padding[1]
        y, x = (tirx.floordiv(at, step) - first for at, step, first in zip(t, self.steps, self.begin, strict=True))
        down, across = (tirx.floormod(at, step) for at, step in zip(t, self.steps, strict=True))
        return y, x, down * self.steps[1] + across


def can_convolve(call: Call, *dtypes: str) -> bool:
    """Whether a convolution of data of some types has stored weights, reads an image in memory, and makes one in
    blocks."""
    layout = call.layout_of("input")
    has_layouts = layout is not None and layout.block in (0, call.layout.block) and bool(call.layout.block)
    return call["input"].dtype in dtypes and has_layouts and call["weight"].constant is not None


def transposed_windows_of(call: Call) -> Windows:
    """The windows of a transposed convolution: without the taps that fall between its pixels, but where it is dilated
    too."""
    n, _, height, width = spec(call.in_memory("input")).shape
    ph, pw = call["padding"]
    kernel, stride, dilation, added = (
        (int(pair[0]), int(pair[1]))
        for pair in (call["weight"].shape[2:], call["stride"], call["dilation"], call["output_padding"])
    )
    spread = SpreadWindows(n, height, width, kernel, stride, (ph, pw, ph, pw), dilation, added)
    if max(stride) == 1 or max(dilation) > 1:
        return spread
    taps = -(-kernel[0] // stride[0]), -(-kernel[1] // stride[1])
    result = spread.out_height, spread.out_width
    return PhasedWindows(n, height, width, taps, (1, 1), spread.padding, dilation, stride, result)


def windows_of(call: Call) -> Windows:
    """The windows of a call."""
    n, _, height, width = spec(call.in_memory("input")).shape
    ph, pw = call["padding"]
    top, left, bottom, right = zero_edges(arguments(call.node)["input"]) or (0, 0, 0, 0)
    return Windows(
        n,
        height,
        width,
        (int(call["weight"].shape[2]), int(call["weight"].shape[3])),
        (int(call["stride"][0]), int(call["stride"][1])),
        (ph + top, pw + left, ph + bottom, pw + right),
        (int(call["dilation"][0]), int(call["dilation"][1])),
    )

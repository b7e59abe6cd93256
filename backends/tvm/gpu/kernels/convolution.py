"""What all products that stand for a convolution share: shapes, the order of terms, and which calls they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lvc.backends.tvm.gpu.kernels.windows import SpreadWindows, Windows, can_convolve, spread_windows_of, windows_of
from lvc.backends.tvm.gpu.launch import QUAD, split
from lvc.backends.tvm.nest import Expr
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class Convolution:
    """Data ``[N, ceil(C/4), H, W, 4]``, or plain ``[N, C, H, W]`` where not ``is_blocked``; result
    ``[N, ceil(O/4), OH, OW, 4]``. Channels of groups are multiples of 4 where there are several."""

    windows: Windows
    channels: int
    filters: int
    groups: int
    is_blocked: bool

    @property
    def group_channels(self) -> int:
        """Channels of a group in memory."""
        each = self.channels // self.groups
        return -(-each // QUAD) * QUAD if self.is_blocked else each

    @property
    def group_filters(self) -> int:
        """Results of a group in memory."""
        return -(-self.filters // self.groups // QUAD) * QUAD

    @property
    def products(self) -> int:
        """Of elements, for each result."""
        return self.group_channels * self.windows.taps

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """That of the result in memory."""
        w = self.windows
        return w.batch, -(-self.filters // QUAD), w.out_height, w.out_width, QUAD

    def ordered(self, weight: np.ndarray) -> np.ndarray:
        """Weights ``[O, C/groups, KH, KW]``, or ``[C, O/groups, KH, KW]`` of a transposed convolution, as
        ``[groups, products, O/groups]``: taps outside and channels inside, or, of plain data, channels outside."""
        each, taps = self.filters // self.groups, self.windows.taps
        if isinstance(self.windows, SpreadWindows):  # they are [C, O/groups, KH, KW]
            weight = weight.reshape(self.groups, -1, each, taps).swapaxes(1, 2)
        by_group = weight.reshape(self.groups, each, self.channels // self.groups, taps)
        terms = np.zeros((self.groups, each, self.group_channels, taps), weight.dtype)
        terms[:, :, : by_group.shape[2]] = by_group
        ordered = terms.transpose(0, 3, 2, 1) if self.is_blocked else terms.transpose(0, 2, 3, 1)
        return ordered.reshape(self.groups, -1, each)

    def read(self, data: Any, place: tuple[Expr, Expr, Expr], group: Expr, element: Expr) -> tuple[Expr, Any]:
        """The element of the data that is a group's so-manyth of a window, and the condition under which it is there.
        ``place`` is the image, row and column of the result."""
        w, (n, y, x) = self.windows, place
        channel, tap = (
            (element % self.group_channels, element // self.group_channels)
            if self.is_blocked
            else (element // w.taps, element % w.taps)
        )
        row, column = w.place(y, x, tap)
        whole, source = group * self.group_channels + channel, w.source(row, column)
        at = (n, whole // QUAD, *source, whole % QUAD) if self.is_blocked else (n, whole, *source)
        return w.is_inside(row, column), data[at]

    def index(self, pixel: Expr, group: Expr, channel: Expr) -> list[Expr]:
        """Where the block of four of a channel of a group's result lies, for a pixel: all but the lane."""
        w = self.windows
        image, y, x = split(pixel, (w.batch, w.out_height, w.out_width))
        return [image, group * (self.group_filters // QUAD) + channel // QUAD, y, x]


def convolution_of(call: Call) -> Convolution | None:
    """That of a call with stored weights, in float32 or integers; None of any other."""
    is_integer, is_spread = is_call(call.node, integer.conv2d), is_call(call.node, aten.conv_transpose2d.input)
    if not is_integer and not is_spread and not is_call(call.node, aten.conv2d.default):
        return None
    layout = call.layout_of("input")
    if layout is None or not can_convolve(call, *(("uint8", "int8") if is_integer else ("float32",))):
        return None
    channels, filters, groups = call["input"].shape[1], call.shape[1], call["groups"]
    if groups > 1 and (not layout.block or channels // groups % QUAD or filters // groups % QUAD):
        return None
    if is_integer and not layout.block:
        return None
    windows = spread_windows_of(call) if is_spread else windows_of(call)
    return Convolution(windows, channels, filters, groups, bool(layout.block))

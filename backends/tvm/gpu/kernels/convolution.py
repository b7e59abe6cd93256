"""What all products that stand for a convolution share: shapes, the order of terms, and which calls they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tvm import tirx

from lvc.backends.tvm.gpu.kernels.windows import (
    PhasedWindows,
    SpreadWindows,
    Windows,
    can_convolve,
    transposed_windows_of,
    windows_of,
)
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
    def phase_filters(self) -> int:
        """Results of a group in memory at one place."""
        return -(-self.filters // self.groups // QUAD) * QUAD

    @property
    def group_filters(self) -> int:
        """Results of a group in memory that are made of one window: those of each phase, one behind the other."""
        return self.windows.phases * self.phase_filters

    @property
    def products(self) -> int:
        """Of elements, for each result."""
        return self.group_channels * self.windows.taps

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """That of the result in memory."""
        w = self.windows
        return w.batch, -(-self.filters // QUAD), *w.result, QUAD

    def ordered(self, weight: np.ndarray) -> np.ndarray:
        """Weights ``[O, C/groups, KH, KW]``, or ``[C, O/groups, KH, KW]`` of a transposed convolution, as
        ``[groups, products, O/groups]``, or as many columns as `group_filters` where there are phases: taps outside and
        channels inside, or, of plain data, channels outside."""
        each, taps = self.filters // self.groups, self.windows.taps
        if isinstance(self.windows, PhasedWindows):
            each, weight = self.group_filters, self._phased(self.windows, weight)
        elif isinstance(self.windows, SpreadWindows):  # they are [C, O/groups, KH, KW]
            weight = weight.reshape(self.groups, -1, each, taps).swapaxes(1, 2)
        by_group = weight.reshape(self.groups, each, self.channels // self.groups, taps)
        terms = np.zeros((self.groups, each, self.group_channels, taps), weight.dtype)
        terms[:, :, : by_group.shape[2]] = by_group
        ordered = terms.transpose(0, 3, 2, 1) if self.is_blocked else terms.transpose(0, 2, 3, 1)
        return ordered.reshape(self.groups, -1, each)

    def _phased(self, windows: PhasedWindows, weight: np.ndarray) -> np.ndarray:
        """Weights ``[C, O/groups, KH, KW]`` as ``[groups, group_filters, C/groups, taps of a phase]``."""
        (rows, columns), (down, across) = windows.kernel, windows.steps
        channels, each, height, width = weight.shape
        whole = np.zeros((channels, self.phase_filters, rows * down, columns * across), weight.dtype)
        whole[:, :each, :height, :width] = weight
        taps = whole.reshape(self.groups, -1, self.phase_filters, rows, down, columns, across)
        return taps.transpose(0, 4, 6, 2, 1, 3, 5).reshape(self.groups, self.group_filters, -1, windows.taps)

    def read(self, data: Any, place: tuple[Expr, Expr, Expr], group: Expr, element: Expr) -> tuple[Expr, Any]:
        """The element of the data that is a group's so-manyth of a window, and the condition under which it is there.
        ``place`` is the image, row and column of the window."""
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

    def index(self, pixel: Expr, group: Expr, column: Expr) -> tuple[list[Expr], list[Expr]]:
        """Where the block of four of a column of a group's products lies in the result, for a pixel: all but the lane;
        and the conditions under which it is there."""
        w, each = self.windows, self.phase_filters
        image, y, x = split(pixel, (w.batch, w.out_height, w.out_width))
        phase, channel = (column // each, column % each) if w.phases > 1 else (tirx.const(0, "int32"), column)
        row, place, conditions = w.made(y, x, phase)
        return [image, group * (each // QUAD) + channel // QUAD, row, place], conditions

    def made_of(self, out: Expr, row: Expr, place: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """The group and the column of its products that make a channel at a row and place of the result, and the row
        and place of their window."""
        y, x, phase = self.windows.making(row, place)
        return out // self.phase_filters, phase * self.phase_filters + out % self.phase_filters, y, x


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
    windows = transposed_windows_of(call) if is_spread else windows_of(call)
    return Convolution(windows, channels, filters, groups, bool(layout.block))

"""Where the windows of a convolution or a pooling lie along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lvc.compiler.load.onnx_importer.call import Call

MAX_REACH = 1 << 16


@dataclass(frozen=True)
class Window:
    """The windows along one axis of ``size`` elements: reach, step, spacing of taps, zeros before and after."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil: bool = False

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def count(self) -> int:
        """Number of windows; in ceil mode the last may hang over, but must start on the data or the padding before."""
        free = self.size + self.before + self.after - self.extent
        if not self.ceil:
            return free // self.stride + 1
        count = -(-free // self.stride) + 1
        return count - 1 if (count - 1) * self.stride >= self.size + self.before else count

    @property
    def is_symmetric(self) -> bool:
        """Does the padding before, used on both sides, give the same windows?"""
        return replace(self, after=self.before, ceil=False).count == self.count

    @property
    def needed_after(self) -> int:
        """Padding after the data that the last window reads."""
        return max((self.count - 1) * self.stride + self.extent - self.size - self.before, 0)

    def tap_counts(self, include_padding: bool) -> list[int]:
        """How many taps of each window lie on the data (and the padding, without what ceil mode hangs over)."""
        low, high = (
            (0, self.before + self.size + self.after)
            if include_padding
            else (
                self.before,
                self.before + self.size,
            )
        )
        starts = range(0, self.count * self.stride, self.stride)
        return [sum(low <= start + k * self.dilation < high for k in range(self.kernel)) for start in starts]


def read_windows(call: Call, kernel: Sequence[int]) -> list[Window]:
    """Read strides, dilations, pads, auto_pad and ceil_mode of a node for each spatial axis."""
    mode = call.attribute("auto_pad", "NOTSET")
    windows = given_windows(call, kernel)
    return windows if mode == "NOTSET" else [auto_padded(window, mode) for window in windows]


def given_windows(call: Call, kernel: Sequence[int]) -> list[Window]:
    """Read the windows as `read_windows` does, but by the pads that the node gives."""
    sizes = call.shape()[2:]
    rank = len(sizes)
    if len(kernel) != rank:
        raise ValueError(f"a kernel of {len(kernel)} dimensions on data of {rank}")
    strides = [int(n) for n in call.attribute("strides") or [1] * rank]
    dilations = [int(n) for n in call.attribute("dilations") or [1] * rank]
    pads = [int(n) for n in call.attribute("pads") or [0] * (2 * rank)]
    ceil = bool(call.attribute("ceil_mode", 0))
    if min([*strides, *dilations, *kernel], default=1) < 1 or len(pads) != 2 * rank:
        raise ValueError("strides, dilations and kernel sizes must be positive, and pads two for each axis")
    if max([*map(abs, pads), *kernel, *dilations], default=0) > MAX_REACH:
        raise ValueError(f"pads, dilations and kernel sizes may not exceed {MAX_REACH}")
    windows = []
    for axis, size in enumerate(sizes):
        before, after = pads[axis], pads[axis + rank]
        windows.append(Window(size, kernel[axis], strides[axis], dilations[axis], before, after, ceil))
    return windows


def auto_padded(window: Window, mode: str) -> Window:
    """Apply ``auto_pad``: VALID pads nothing, SAME as much as gives ceil(size / stride) windows."""
    if mode == "VALID":
        return replace(window, before=0, after=0)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad cannot be '{mode}'")
    count = -(-window.size // window.stride)
    pads = max((count - 1) * window.stride + window.extent - window.size, 0)
    small, large = pads // 2, pads - pads // 2
    before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
    return replace(window, before=before, after=after, ceil=False)


def flat_pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Write the pads of the last axes the way ATen reads them: last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]

"""A convolution that makes few channels, then a 1x1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.output_axes import OutputAxes


@dataclass(frozen=True, kw_only=True)
class ChannelSvd(OutputAxes):
    """A convolution that makes few channels, then a 1x1 convolution."""

    name: ClassVar[str] = "channel-svd"

    def refusal(self, kernel: Kernel) -> str | None:
        return "its window is 1x1, which is for svd" if kernel.window == (1, 1) else None

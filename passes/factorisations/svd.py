"""A linear layer or 1x1 convolution as two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.output_axes import OutputAxes


@dataclass(frozen=True, kw_only=True)
class Svd(OutputAxes):
    """A linear layer or 1x1 convolution as two thin ones."""

    name: ClassVar[str] = "svd"

    def refusal(self, kernel: Kernel) -> str | None:
        return None if kernel.window == (1, 1) else f"it has a window of {kernel.window[0]}x{kernel.window[1]}"

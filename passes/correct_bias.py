"""Move biases so that each layer's mean output over calibration data is that of the floating-point model.

How, and by whom, `lvc.passes.quantisation.bias_correction` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lvc.passes.quantisation.bias_correction import bias_correction
from lvc.passes.quantisation.layer_pass import LayerPass, Mending


@dataclass(frozen=True, kw_only=True)
class CorrectBias(LayerPass):
    """Correct the mean error of each quantised layer in its bias, on calibration data."""

    name: ClassVar[str] = "correct-bias"

    @property
    def mendings(self) -> Sequence[Mending]:
        return (bias_correction(self.images),)

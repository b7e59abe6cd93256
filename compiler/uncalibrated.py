"""Where a fake quantisation will stand once its grid is known: `lvc::uncalibrated`, which changes nothing.

`insert-fake-quant` places it, and `calibrate` puts ATen's fake quantisation in its stead. Until then the model computes
what it did, and nothing that builds code takes it. Its arguments say which grids come into question: ``bits`` from 2
to 8; one grid, or one for each place of ``axis``; ``symmetric`` about zero; steps of ``scale`` (linear, or a power of
two); and the ``group``, if it is not empty: places of one group get the same grid.
"""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.library import Library

_LIBRARY = Library("lvc", "FRAGMENT")  # type: ignore[no-untyped-call]


def _unchanged(x: torch.Tensor, *_: object) -> torch.Tensor:
    return x.clone()


_LIBRARY.define(  # type: ignore[no-untyped-call]
    "uncalibrated(Tensor self, int bits, int? axis, bool symmetric, str scale, str group) -> Tensor"
)
_LIBRARY.impl("uncalibrated", _unchanged, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]

UNCALIBRATED: OpOverload = torch.ops.lvc.uncalibrated.default
WHY_NOT = "its grid is not known yet"
HELP = "run calibrate{data=NAME} after insert-fake-quant, with --data NAME=PATH"

"""Products of matrices by tiles of warps: what there is to know of one before its tile is written."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.backends.tvm.gpu.kernels.matrix_factors import MatrixFactor
from lvc.backends.tvm.gpu.kernels.warp_columns import VECTOR, WORDS
from lvc.backends.tvm.gpu.kernels.warp_tile import WarpTile
from lvc.backends.tvm.gpu.launch import QUAD


@dataclass(frozen=True)
class WarpMatrices:
    """``[M, K]`` times ``[K, N]``."""

    m: int
    n: int
    k: int
    factor: MatrixFactor
    tile: WarpTile

    @property
    def depth(self) -> int:
        """Words of a sum."""
        return -(-self.k // self.factor.elements)

    @property
    def step(self) -> int:
        """Elements of a step."""
        return WORDS * self.factor.elements

    @property
    def together(self) -> int:
        """Neighbours that a thread loads of a row: a vector, where all rows begin at a whole one."""
        vector = VECTOR * self.factor.elements
        return vector if self.k % vector == 0 else QUAD

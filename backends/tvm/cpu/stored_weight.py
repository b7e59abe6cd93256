"""Stored weights in the order in which a kernel reads them, as they are or made of fewer bits at loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvc.backends.tvm.cpu import decoding
from lvc.backends.tvm.cpu.integer_layers import saturation_mask, widened_weight
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.fused import SATURATION_MASK
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant, Prepared


@dataclass(frozen=True)
class StoredWeight:
    """``values`` of the operand of a call that is called ``name``; ``pack`` brings them into ``shape`` for a problem,
    words of the operand that its steps multiply."""

    call: Call
    name: str
    values: np.ndarray
    problem: Any
    shape: tuple[int, ...]
    pack: Callable[[Any, np.ndarray], np.ndarray]

    @property
    def key(self) -> str:
        """Equal for equal bytes: operators and operands may read one tensor along other axes."""
        return f"{self.call.in_memory(self.name).target} {self.call.node.target} {self.name} {self.problem}"

    @property
    def operand(self) -> DotOperand:
        """What the weights are one factor of."""
        return getattr(self.problem, "operand", FLOAT32)

    def source(self) -> Constant | Prepared:
        """Where they come from."""
        codes = self.call[self.name].codes
        if codes is not None and self.operand.packed == "float32":
            return decoding.prepared(self.key, codes, self.shape, self._pack)
        narrow = widened_weight(self.call, self.key, self.operand, self.shape, self.packed)
        return Constant(self.key, self.packed) if narrow is None else narrow

    def tensor(self) -> Any:
        """The kernel's parameter."""
        return self.call.scope.parameter(self.shape, self.operand.packed, self.source())

    def packed(self) -> np.ndarray:
        """The weights in their order."""
        return self._pack(self.values)

    def _pack(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.pack(self.problem, values))

    def mask_saturation(self, shape: tuple[int, ...]) -> None:
        """Let the kernel know which of them could saturate, if some could."""
        if self.operand.is_masked:
            mask = Constant(f"{self.key} {SATURATION_MASK}", lambda: saturation_mask(self.operand, self.packed()))
            self.call.scope.parameter(shape, "uint8", mask, SATURATION_MASK)

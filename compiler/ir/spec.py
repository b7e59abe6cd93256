"""What is known of a tensor before it has values: its shape and its element type."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lvc.compiler.errors import UsageError

DTYPES: dict[str, torch.dtype] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """Return the short name of an element type, ``f32`` for ``torch.float32``."""
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


@dataclass(frozen=True)
class TensorSpec:
    """Shape and element type of one tensor; printed and parsed as ``f32[1,3,224,224]``."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        return cls(tuple(int(size) for size in tensor.shape), tensor.dtype)

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read ``f32[1,3,224,224]``; raises `UsageError` for anything else."""
        name, _, sizes = text.partition("[")
        if name not in DTYPES or not sizes.endswith("]"):
            raise UsageError(f"'{text}' is not a tensor type", help="write it as f32[1,3,224,224]")
        body = sizes[:-1].strip()
        try:
            shape = tuple(int(size) for size in body.split(",")) if body else ()
        except ValueError:
            raise UsageError(f"'{text}' is not a tensor type", help="write it as f32[1,3,224,224]") from None
        return cls(shape, DTYPES[name])

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]"

"""What is known of a tensor before it has values: its shape and its element type. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch

ELEMENT_TYPES: dict[str, str] = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
    "bool": "bool",
}
"""The short names of element types, and what PyTorch and NumPy call them."""

_SHORT = {name: short for short, name in ELEMENT_TYPES.items()}


@dataclass(frozen=True, init=False)
class TensorSpec:
    """Shape and element type of one tensor; printed and parsed as ``f32[1,3,224,224]``.

    ``element`` is the short name of the type, or PyTorch's where there is none, so that a spec can be had without
    PyTorch.
    """

    shape: tuple[int, ...]
    element: str

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype | str = "f32") -> None:
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "element", dtype if isinstance(dtype, str) else dtype_name(dtype))

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        return cls(tuple(int(size) for size in tensor.shape), tensor.dtype)

    @classmethod
    def of_array(cls, array: np.ndarray) -> TensorSpec:
        """Return the spec of an array; `UsageError` for one that does not hold numbers in this machine's order."""
        return cls.of_dtype(array.shape, array.dtype)

    @classmethod
    def of_dtype(cls, shape: tuple[int, ...], dtype: np.dtype[Any]) -> TensorSpec:
        """That of an array with this shape and type; `UsageError` as above."""
        if dtype.kind not in "biufc" or not dtype.isnative:
            raise UsageError("an input is not an array of numbers", why=f"it is {dtype}")
        return cls(shape, _SHORT.get(dtype.name, dtype.name))

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read ``f32[1,3,224,224]``; raises `UsageError` for anything else."""
        name, _, sizes = text.partition("[")
        if name not in ELEMENT_TYPES or not sizes.endswith("]"):
            raise UsageError(f"'{text}' is not a tensor type", help="write it as f32[1,3,224,224]")
        body = sizes[:-1].strip()
        try:
            shape = tuple(int(size) for size in body.split(",")) if body else ()
        except ValueError:
            raise UsageError(f"'{text}' is not a tensor type", help="write it as f32[1,3,224,224]") from None
        return cls(shape, name)

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.type_name)

    @property
    def type_name(self) -> str:
        """The element type as PyTorch and NumPy call it, ``float32``."""
        return ELEMENT_TYPES.get(self.element, self.element)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.element}[{','.join(map(str, self.shape))}]"


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """Return the short name of an element type, ``f32`` for ``torch.float32``."""
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(name, name)


@cache
def torch_dtype(name: str) -> torch.dtype:
    """Return PyTorch's element type of a short name or of its own, ``torch.float32`` for ``f32``."""
    import torch

    found = getattr(torch, ELEMENT_TYPES.get(name, name))
    assert isinstance(found, torch.dtype)
    return found

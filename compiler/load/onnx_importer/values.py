"""What flows between converters: graph nodes, and constants that are known while loading."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch.fx import Node

from lvc.compiler.ir.graph import can_name_input, spec
from lvc.compiler.ir.spec import TensorSpec

MAX_BYTES = 2 << 30  # of one result; more is a mistake or an attack

HALVES = frozenset({"float16", "bfloat16"})
"""Types that are widened to float32 here: what they hold is exact in it, and the results are only rounded less."""

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float32,
    "bfloat16": torch.float32,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_WIDENED = {"int4": np.int8, "uint4": np.uint8, **dict.fromkeys(HALVES, np.float32)}


class Unsupported(Exception):
    """This node cannot be expressed in the dialect; the message says why, as part of a sentence."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known while loading, the initialiser's name if it has one, and whether training may move it."""

    tensor: torch.Tensor
    name: str = ""
    trainable: bool = False


Value = Node | Constant


def shape_of(value: Value) -> tuple[int, ...]:
    return tuple(value.tensor.shape) if isinstance(value, Constant) else spec(value).shape


def dtype_of(value: Value) -> torch.dtype:
    return value.tensor.dtype if isinstance(value, Constant) else spec(value).dtype


def check_size(spec: TensorSpec) -> TensorSpec:
    """Return a spec if a tensor of it can reasonably be made."""
    if spec.bytes > MAX_BYTES:
        raise ValueError(f"{spec} would take {spec.bytes} bytes")
    return spec


def constant(data: object, dtype: torch.dtype = torch.int64) -> Constant:
    """Make a nameless constant out of numbers, a numpy array or a tensor."""
    return Constant(torch.as_tensor(data, dtype=dtype))


def type_name(element_type: object) -> str:
    """Return numpy's name of an ONNX element type (its number) or a numpy type."""
    if isinstance(element_type, int):
        name = str(onnx.TensorProto.DataType.Name(element_type)).lower()
        return {"float": "float32", "double": "float64"}.get(name, name)
    return str(np.dtype(element_type).name) if element_type is not None else "unknown"  # type: ignore[call-overload]


def torch_dtype(element_type: object) -> torch.dtype:
    """Return the torch type of an element type, float32 for one of half its precision; `Unsupported` if none is."""
    name = type_name(element_type)
    if name not in DTYPES:
        raise Unsupported(f"element type {name} is not in the dialect")
    return DTYPES[name]


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Copy an array of any element type into a tensor: numbers of 4 bits become such of 8, half precision float32."""
    array = array.astype(_WIDENED.get(array.dtype.name, array.dtype), copy=False)
    torch_dtype(array.dtype)
    return torch.from_numpy(np.array(array, order="C", copy=True))


def safe_name(text: str) -> str:
    """Turn any ONNX name into an identifier, ``layer1_conv1_Conv`` for ``/layer1/conv1/Conv``."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "value"
    name = name if not name[0].isdigit() else f"_{name}"
    return name if can_name_input(name) else f"{name}_"


def input_name(text: str) -> str:
    """Return an input's name as it is if a graph can have it, and else one near it."""
    return text if can_name_input(text) else safe_name(text)


def safe_path(text: str) -> str:
    """Turn an initialiser's name into a dotted path under which a module can store it, keeping its dots."""
    parts = (re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in text.split("."))
    path = ".".join(part for part in parts if part) or "tensor"
    return f"_{path}" if path[0].isdigit() else path

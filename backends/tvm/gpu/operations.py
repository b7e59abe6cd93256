"""The operations of TIR in CUDA C."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from lvc.backends.tvm.gpu.expressions import number
from lvc.backends.tvm.gpu.launch import DP4A, DP4A_UNSIGNED, FMA
from lvc.backends.tvm.nest import Expr
from lvc.backends.tvm.short_floats import FLOAT16
from lvc.compiler.errors import CompileError

_TYPES = {
    "float16": "lvc_half",
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "lvc_int64",
    "int8": "lvc_int8",
    "uint8": "lvc_uint8",
    "uint16": "lvc_uint16",
    "uint32": "unsigned",
    "bool": "bool",
}
_OWN = {FMA: "LVC_FMA", DP4A: "LVC_DP4A", DP4A_UNSIGNED: "LVC_DP4A_UNSIGNED"}
EXTERNS: Mapping[str, Mapping[str, str]] = {"tirx.call_extern": _OWN, "tirx.call_pure_extern": _OWN}
"""The calls of functions by name, and what the names of own ones are in the prelude."""

CONDITIONAL = "prim.if_then_else"
"""The call whose second and third argument are computed under a condition alone."""

_SYMBOLS: Mapping[str, str] = {
    "Add": "+",
    "Sub": "-",
    "Mul": "*",
    "Div": "/",
    "Mod": "%",
    "EQ": "==",
    "NE": "!=",
    "LT": "<",
    "LE": "<=",
    "GT": ">",
    "GE": ">=",
    "And": "&&",
    "Or": "||",
    "BitwiseAnd": "&",
    "BitwiseOr": "|",
    "BitwiseXor": "^",
    "LShift": "<<",
    "RShift": ">>",
}
_NAMES = (
    "floor ceil trunc round nearbyint fabs fmod sqrt rsqrt pow exp exp2 exp10 log log2 log10 log1p erf tanh sinh cosh "
    "asinh acosh atanh sin cos tan asin acos atan atan2 hypot copysign"
)
_FUNCTIONS = frozenset(_NAMES.split())
"""Functions of real numbers that TIR and CUDA C call alike; of float32 they end in ``f``."""


def type_name(dtype: str) -> str:
    """An element type in CUDA C."""
    if dtype not in _TYPES:
        raise CompileError(f"there are no kernels for GPUs with elements of {dtype}")
    return _TYPES[dtype]


def constant(node: Any) -> str:
    """A number; of floating-point ones every bit."""
    if isinstance(node, int):
        return str(node) if node >= 0 else f"({node})"
    dtype = str(node.ty.dtype)
    if isinstance(node, tirx.FloatImm):
        return _real(float(node.value), dtype)
    value = int(node.value)
    if dtype == "bool":
        return "true" if value else "false"
    if dtype == "int64":
        return f"(-{-value - 1}LL - 1)" if value < 0 else f"{value}LL"
    if dtype not in ("int32",):
        return f"(({type_name(dtype)}){value})"
    if value == -(1 << 31):
        return "(-2147483647 - 1)"
    return str(value) if value >= 0 else f"({value})"


def _real(value: float, dtype: str) -> str:
    if dtype == FLOAT16:
        return f"lvc_bits<lvc_half>((lvc_uint16){int(np.float16(value).view(np.uint16))})"
    suffix = {"float32": "f", "float64": ""}.get(dtype)
    if suffix is None:
        raise CompileError(f"there are no kernels for GPUs with numbers of {dtype}")
    exact = float(np.float32(value)) if dtype == "float32" else value
    if math.isnan(exact):
        raise CompileError("a kernel for GPUs cannot hold NaN as a number")
    if math.isinf(exact):
        bits = ("0x7f800000", "int") if dtype == "float32" else ("0x7ff0000000000000LL", "lvc_int64")
        text = f"lvc_bits<{type_name(dtype)}>(({bits[1]}){bits[0]})"
    else:
        text = abs(exact).hex() + suffix
    return f"(-{text})" if exact < 0 or math.copysign(1, exact) < 0 else text


def cast(dtype: str, value: str, source: str = "") -> str:
    """A conversion, from the type of the source where that is given; float16 is converted from and to float32."""
    if dtype == source:
        return value
    if source == FLOAT16:
        return cast(dtype, f"lvc_widen({value})", "float32")
    return f"lvc_narrow({cast('float32', value, source)})" if dtype == FLOAT16 else f"(({type_name(dtype)}){value})"


def binary(node: Any, a: str, b: str, *, is_positive: bool) -> str:
    """An operation on two numbers; of a division the dividend may be known not to be negative."""
    if isinstance(node, tirx.FloorDiv | tirx.FloorMod):
        is_quotient = isinstance(node, tirx.FloorDiv)
        divisor = number(node.b)
        if is_positive and divisor is not None and divisor > 0:
            return f"({a} {'/' if is_quotient else '%'} {b})"
        return f"lvc_{'floordiv' if is_quotient else 'floormod'}<{type_name(str(node.ty.dtype))}>({a}, {b})"
    dtype = str(node.ty.dtype)
    if isinstance(node, tirx.Min | tirx.Max):
        return f"lvc_{'min' if isinstance(node, tirx.Min) else 'max'}<{type_name(dtype)}>({a}, {b})"
    symbol = _SYMBOLS.get(type(node).__name__)
    if symbol is None:
        raise CompileError(f"a kernel for GPUs cannot compute {type(node).__name__}")
    text = f"({a} {symbol} {b})"
    return cast(dtype, text) if dtype in ("int8", "uint8", "uint16") else text


def intrinsic(call: Any, print_one: Callable[[Expr], str]) -> str:
    """A call of one of TVM's own functions."""
    name, dtype = getattr(call.op, "name", str(call.op)), str(call.ty.dtype)
    if name == "tirx.call_llvm_pure_intrin" and int(call.args[0].value) == _fence():
        return print_one(call.args[-1])  # nothing is contracted here
    arguments = list(map(print_one, call.args))
    if name.endswith(".reinterpret"):
        return f"lvc_bits<{type_name(dtype)}>({arguments[0]})"
    if name.endswith(".likely"):
        return arguments[0]
    if name.endswith(".isnan"):
        return f"lvc_isnan({arguments[0]})"
    function = name.rpartition(".")[2]
    if function not in _FUNCTIONS or dtype not in ("float32", "float64"):
        raise CompileError(f"a kernel for GPUs cannot call {name} of {dtype}")
    return f"{function}{'f' if dtype == 'float32' else ''}({', '.join(arguments)})"


@cache
def _fence() -> int:
    return int(tvm.get_global_func("target.llvm_lookup_intrinsic_id")("llvm.arithmetic.fence"))

"""Calls of the ATen overloads that compute element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from drawing import ANY, BOOL, FLOATS, WHOLE, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten
NUMBERS = FLOATS + WHOLE


def _unary(low: float = -3, high: float = 3, dtypes: Sequence[torch.dtype] = FLOATS) -> Drawn:
    return lambda d: {"self": d.tensor(d.shape(), dtypes, low, high)}


def _scalar(d: Draw, dtypes: Sequence[torch.dtype] = NUMBERS) -> float:
    """A number that may be given beside tensors of these types."""
    return d.value() if torch.float32 in dtypes else d.number(-2, 2)


def _nonzero(d: Draw, x: Tensor) -> Tensor:
    """The same numbers, none of them near zero."""
    return torch.where(x.abs() < 0.25, torch.ones_like(x), x) if x.dtype is not torch.bool else x


def _pair(
    second: str = "other",
    dtypes: Sequence[torch.dtype] = NUMBERS,
    *,
    alpha: bool = False,
    divides: bool = False,
    number: bool = False,
    options: dict[str, Sequence[Any]] | None = None,
) -> Drawn:
    """Two tensors that broadcast, either of which may be of rank 0."""

    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=dtypes)
        y = d.beside(x, dtypes)
        if d.flag():
            x, y = y, x
        given: Arguments = {"self": x, second: _nonzero(d, y) if divides else y}
        if number and d.number(0, 3) == 0:
            given[second] = d.pick(2, -3, 0.5)
        if alpha:
            whole = not (_is_float(x) or _is_float(given[second]))
            given["alpha"] = d.pick(1, 2, -1) if whole else d.pick(1, 2, 0.5, -1)
        return given | {name: d.pick(*values) for name, values in (options or {}).items()}

    return draw


def _is_float(term: Tensor | float) -> bool:
    return term.is_floating_point() if isinstance(term, Tensor) else isinstance(term, float)


def _with_number(
    name: str = "other",
    dtypes: Sequence[torch.dtype] = NUMBERS,
    *,
    alpha: bool = False,
    divides: bool = False,
    options: dict[str, Sequence[Any]] | None = None,
) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=dtypes)
        number = d.pick(2, -3, 0.5, -1.5, 1) if divides else d.pick(0, 1, d.value())
        given: Arguments = {"self": x, name: number}
        if alpha:
            whole = not (x.is_floating_point() or isinstance(number, float))
            given["alpha"] = d.pick(1, 2) if whole else d.pick(1, 2, 0.5)
        return given | {key: d.pick(*values) for key, values in (options or {}).items()}

    return draw


_MODES = {"rounding_mode": (None, "floor", "trunc")}


def _power(d: Draw) -> Arguments:
    x = d.tensor(d.shape(), NUMBERS, 0.25, 3)
    whole = (0, 1, 2, 3, 4)
    real = (1.0, 2.0, 0.5, -0.5, -1, -2, 1.5, 3.0)
    return {"self": x, "exponent": d.pick(*whole, *real) if x.is_floating_point() else d.pick(*whole, 2.0, 0.5, 1.0)}


def _powers(d: Draw) -> Arguments:
    x = d.tensor(d.shape(), NUMBERS, 0.25, 3)
    return {"self": x, "exponent": d.tensor(d.broadcast(x.shape), NUMBERS, 0, 3)}


def _clamp(least: str = "min", most: str = "max") -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=NUMBERS)
        low, high = d.maybe(d.value()), d.maybe(d.value())
        return {"self": x, least: low, most: d.value() if low is None and high is None else high}

    return draw


def _clamp_by_tensors(d: Draw) -> Arguments:
    x = d.any(dtypes=NUMBERS)
    low, high = d.maybe(d.beside(x, NUMBERS)), d.maybe(d.beside(x, NUMBERS))
    return {"self": x, "min": low, "max": d.beside(x, NUMBERS) if low is None and high is None else high}


def _where(first: bool, second: bool) -> Drawn:
    """Two operands, each a tensor or a number."""

    def draw(d: Draw) -> Arguments:
        condition = d.any(dtypes=BOOL)
        x = d.beside(condition) if first else d.pick(d.value(), d.flag())
        y = d.beside(condition) if second else d.pick(d.value(), d.flag())
        return {"condition": condition, "self": x, "other": y}

    return draw


def _masked_fill(tensor: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any()
        value = d.tensor((), [x.dtype]) if tensor else d.value() if x.is_floating_point() else d.number(0, 1)
        return {"self": x, "mask": d.beside(x, BOOL), "value": value}

    return draw


def _cast(**others: Any) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.tensor(d.shape(), ANY, 0, 3)
        return {"self": x, **others, "dtype": d.pick(*d.dtypes)}

    return draw


def _cast_like(d: Draw) -> Arguments:
    return {"self": d.tensor(d.shape(), ANY, 0, 3), "other": d.any()}


def _copy(d: Draw) -> Arguments:
    x = d.any()
    return {"self": x, "src": d.tensor(d.broadcast(x.shape), ANY, 0, 3)}


def _three(d: Draw) -> Arguments:
    x = d.any(dtypes=FLOATS)
    left, right = (d.tensor(d.broadcast(x.shape), [x.dtype], 0.3, 3) for _ in range(2))
    return {"self": x, "tensor1": left, "tensor2": right, "value": d.pick(1, 0.5, -2)}


def _lerp(tensor: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=FLOATS)
        weight = d.tensor(d.broadcast(x.shape), [x.dtype], 0, 1) if tensor else d.pick(0.25, 0.75, 1)
        return {"self": x, "end": d.tensor(d.broadcast(x.shape), [x.dtype]), "weight": weight}

    return draw


_COMPARED = {
    overload: drawn
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload, drawn in (
        (getattr(aten, name).Tensor, _pair(dtypes=ANY)),
        (getattr(aten, name).Scalar, _with_number(dtypes=ANY)),
    )
}
_BITS = dict.fromkeys(
    (
        aten.bitwise_and.Tensor,
        aten.bitwise_or.Tensor,
        aten.bitwise_xor.Tensor,
        aten.__and__.Tensor,
        aten.__or__.Tensor,
    ),
    _pair(dtypes=WHOLE + BOOL),
)

ARITHMETIC: dict[OpOverload, Drawn] = {
    **_COMPARED,
    **_BITS,
    **dict.fromkeys(
        (aten.add.Tensor, aten.sub.Tensor, aten.subtract.Tensor, aten.rsub.Tensor), _pair(alpha=True, number=True)
    ),
    **dict.fromkeys((aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar), _with_number(alpha=True)),
    **dict.fromkeys((aten.mul.Tensor, aten.multiply.Tensor), _pair(dtypes=ANY, number=True)),
    aten.mul.Scalar: _with_number(dtypes=ANY),
    **dict.fromkeys(
        (aten.div.Tensor, aten.divide.Tensor, aten.true_divide.Tensor, aten.floor_divide.default),
        _pair(divides=True, number=True),
    ),
    **dict.fromkeys((aten.remainder.Tensor, aten.fmod.Tensor), _pair(divides=True)),
    **dict.fromkeys((aten.remainder.Scalar, aten.fmod.Scalar), _with_number(divides=True)),
    **dict.fromkeys((aten.div.Scalar, aten.floor_divide.Scalar), _with_number(divides=True)),
    aten.div.Tensor_mode: _pair(divides=True, options=_MODES),
    aten.div.Scalar_mode: _with_number(divides=True, options=_MODES),
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _powers,
    aten.pow.Scalar: lambda d: {"self": d.pick(0, 1, 2, 0.5, 2.5, 10), "exponent": d.tensor(d.shape(), NUMBERS, 0, 3)},
    aten.square.default: _unary(dtypes=NUMBERS),
    aten.clamp.default: _clamp(),
    aten.clip.default: _clamp(),
    aten.clamp.Tensor: _clamp_by_tensors,
    aten.clamp_min.default: _with_number("min"),
    aten.clamp_max.default: _with_number("max"),
    **dict.fromkeys(
        (aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other),
        _pair(dtypes=ANY),
    ),
    aten.where.self: _where(first=True, second=True),
    aten.where.Scalar: _where(first=False, second=False),
    aten.where.ScalarOther: _where(first=True, second=False),
    aten.where.ScalarSelf: _where(first=False, second=True),
    aten.masked_fill.Scalar: _masked_fill(tensor=False),
    aten.masked_fill.Tensor: _masked_fill(tensor=True),
    aten.to.dtype: _cast(),
    aten.to.device: _cast(device=torch.device("cpu")),
    aten.to.dtype_layout: _cast(),
    aten._to_copy.default: _cast(),
    aten.to.other: _cast_like,
    aten.type_as.default: _cast_like,
    aten.copy.default: _copy,
    aten.fill.Scalar: lambda d: {"self": d.any(), "value": d.number(0, 1)},
    aten.fill.Tensor: lambda d: {"self": d.any(), "value": d.tensor((), ANY, 0, 3)},
    aten.zero.default: _unary(dtypes=ANY),
    aten.addcmul.default: _three,
    aten.addcdiv.default: _three,
    aten.lerp.Scalar: _lerp(tensor=False),
    aten.lerp.Tensor: _lerp(tensor=True),
    aten.bitwise_not.default: _unary(dtypes=WHOLE + BOOL),
    **dict.fromkeys(
        (aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default),
        _pair(dtypes=ANY),
    ),
    aten.logical_not.default: _unary(dtypes=ANY),
}

_EVERYWHERE = (
    *(aten.exp, aten.erf, aten.sin, aten.cos, aten.atan, aten.sinh, aten.cosh, aten.asinh, aten.sigmoid, aten.tanh),
    aten.exp2,
)
_POSITIVE = (aten.log, aten.sqrt, aten.rsqrt, aten.reciprocal, aten.log2, aten.log10)
_KEPT = (aten.abs, aten.neg, aten.sign, aten.floor, aten.ceil, aten.round, aten.trunc, aten.relu)
_SMOOTH = (aten.silu, aten.hardswish, aten.hardsigmoid, aten.mish, aten.selu, aten.log_sigmoid)


def _dropout(name: str) -> Drawn:
    return lambda d: {name: d.any(dtypes=FLOATS), "p": d.pick(0.0, 0.5), "train": d.pick(False, False, True)}


def _prelu(d: Draw) -> Arguments:
    x = d.any(1, dtypes=FLOATS)
    channels = x.shape[1] if x.ndim > 1 else 1
    return {"self": x, "weight": d.tensor((d.pick(1, channels),), [x.dtype])}


def _prelu_kernel(d: Draw) -> Arguments:
    x = d.any(2, dtypes=FLOATS)
    return {"self": x, "weight": d.tensor((1, d.pick(1, x.shape[1]), *[1] * (x.ndim - 2)), [x.dtype])}


def _elu(d: Draw) -> Arguments:
    return {"self": d.any(dtypes=FLOATS), "alpha": d.pick(1, 0.5), "scale": d.pick(1, 2), "input_scale": d.pick(1, 0.3)}


def _threshold(d: Draw) -> Arguments:
    x = d.any(dtypes=NUMBERS)
    whole = not x.is_floating_point()
    return {"self": x, "threshold": d.number(-1, 1) if whole else d.value(), "value": d.number(0, 9)}


def _glu(d: Draw) -> Arguments:
    shape = list(d.shape(1))
    dim = d.number(-len(shape), len(shape) - 1)
    shape[dim] *= 2
    return {"self": d.tensor(shape), "dim": dim}


ACTIVATION: dict[OpOverload, Drawn] = {
    **{packet.default: _unary(dtypes=NUMBERS) for packet in _EVERYWHERE},
    **{packet.default: _unary(0.2, 4, dtypes=NUMBERS) for packet in _POSITIVE},
    **{packet.default: _unary(dtypes=NUMBERS) for packet in _KEPT},
    **{packet.default: _unary(-30, 30) for packet in _SMOOTH},
    aten.tan.default: _unary(-1, 1),
    aten.asin.default: _unary(-1, 1),
    aten.acos.default: _unary(-1, 1),
    aten.atanh.default: _unary(-0.9, 0.9),
    aten.acosh.default: _unary(1, 9),
    aten.log1p.default: lambda d: {"self": d.tensor(d.shape(), FLOATS, -0.5, 3) * d.pick(1, 1e-6)},
    aten.expm1.default: lambda d: {"self": d.tensor(d.shape(), FLOATS, -3, 9) * d.pick(1, 1e-6)},
    aten.isnan.default: _unary(dtypes=ANY),
    aten.isinf.default: _unary(dtypes=ANY),
    aten.gelu.default: lambda d: {"self": d.any(dtypes=FLOATS), "approximate": d.pick("none", "tanh")},
    aten.relu6.default: _unary(-9, 9, dtypes=NUMBERS),
    aten.hardtanh.default: lambda d: {
        "self": d.any(dtypes=FLOATS),
        "min_val": d.value(-2, 0),
        "max_val": d.value(0, 2),
    },
    aten.celu.default: lambda d: {"self": d.any(dtypes=FLOATS), "alpha": d.pick(1, 0.4, 2.5)},
    aten.glu.default: _glu,
    aten.elu.default: _elu,
    aten.leaky_relu.default: lambda d: {"self": d.any(dtypes=FLOATS), "negative_slope": d.pick(0.01, 0, 0.3, -0.5)},
    aten.softplus.default: lambda d: {
        "self": d.tensor(d.shape(), FLOATS, -30, 30),
        "beta": d.pick(1, 0.5, 3),
        "threshold": d.pick(20, 2),
    },
    aten.threshold.default: _threshold,
    aten.prelu.default: _prelu,
    aten._prelu_kernel.default: _prelu_kernel,
    aten.rrelu.default: lambda d: {"self": d.any(dtypes=FLOATS), "lower": 0.1, "upper": d.pick(0.3, 0.5)},
    aten.dropout.default: _dropout("input"),
    aten.feature_dropout.default: _dropout("input"),
    aten.alpha_dropout.default: _dropout("input"),
    aten.native_dropout.default: _dropout("input"),
    aten.fake_quantize_per_tensor_affine.default: lambda d: {
        "self": d.tensor(d.shape(), [torch.float32], -9, 9),
        "scale": d.pick(0.1, 0.25),
        "zero_point": d.number(-3, 3),
        "quant_min": -8,
        "quant_max": d.pick(7, 90),
    },
    aten.fake_quantize_per_channel_affine.default: lambda d: {
        "self": (x := d.tensor(d.shape(1), [torch.float32], -9, 9)),
        "scale": d.tensor((x.shape[axis := d.number(0, x.ndim - 1)],), [torch.float32], 0.1, 0.3),
        "zero_point": d.tensor((x.shape[axis],), [torch.int32]),
        "axis": axis,
        "quant_min": -8,
        "quant_max": 7,
    },
}

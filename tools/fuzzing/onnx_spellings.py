"""How ONNX spells each operator of the dialect, opset by opset: layers, pooling, reduction and arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fuzzing.onnx_graph import Unspeakable, Writer
from fuzzing.program import Ref, Step

Spell = Callable[[Writer, Step, dict[str, Any]], str]

PLAIN = {
    "relu": ("Relu", 7), "sigmoid": ("Sigmoid", 7), "tanh": ("Tanh", 7), "exp": ("Exp", 7), "log": ("Log", 7),
    "sqrt": ("Sqrt", 7), "abs": ("Abs", 7), "neg": ("Neg", 7), "floor": ("Floor", 7), "ceil": ("Ceil", 7),
    "round": ("Round", 11), "sign": ("Sign", 9), "reciprocal": ("Reciprocal", 7), "erf": ("Erf", 9), "sin": ("Sin", 7),
    "cos": ("Cos", 7), "tan": ("Tan", 7), "asin": ("Asin", 7), "acos": ("Acos", 7), "atan": ("Atan", 7),
    "sinh": ("Sinh", 9), "cosh": ("Cosh", 9), "asinh": ("Asinh", 9), "acosh": ("Acosh", 9), "atanh": ("Atanh", 9),
    "isnan": ("IsNaN", 9), "isinf": ("IsInf", 10), "logical_not": ("Not", 7), "hardswish": ("HardSwish", 14),
    "mul": ("Mul", 7), "div": ("Div", 7), "pow": ("Pow", 7), "lt": ("Less", 9), "gt": ("Greater", 9),
    "le": ("LessOrEqual", 12), "ge": ("GreaterOrEqual", 12), "eq": ("Equal", 11), "maximum": ("Max", 8),
    "minimum": ("Min", 8), "logical_and": ("And", 7), "logical_or": ("Or", 7), "logical_xor": ("Xor", 7),
    "where": ("Where", 9), "matmul": ("MatMul", 9),
}  # fmt: skip


def plain(w: Writer, step: Step, a: dict[str, Any]) -> str:
    op, since = PLAIN[step.op]
    w.need(since)
    return w.emit(op, *(w.name(value) for value in step.args))


def added(w: Writer, step: Step, a: dict[str, Any]) -> str:
    other = w.name(a["other"])
    if a["alpha"] != 1:
        other = w.emit("Mul", other, w.constant(a["alpha"]))
    return w.emit("Add" if step.op == "add" else "Sub", w.name(a["self"]), other)


def unequal(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    return w.emit("Not", w.emit("Equal", w.name(a["self"]), w.name(a["other"])))


def fmod(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(10)
    return w.emit("Mod", w.name(a["self"]), w.name(a["other"]), fmod=1)


def clamp(w: Writer, step: Step, a: dict[str, Any]) -> str:
    low, high = a["min"], a["max"]
    if w.opset < 11:
        limits: dict[str, Any] = {
            key: float(value) for key, value in (("min", low), ("max", high)) if value is not None
        }
        return w.emit("Clip", w.name(a["self"]), **limits)
    return w.emit("Clip", w.name(a["self"]), w.name(low), w.name(high))


def composed(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x = w.name(step.args[0])
    if step.op == "silu":
        return w.emit("Mul", x, w.emit("Sigmoid", x))
    if step.op == "hardsigmoid":
        return w.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    if step.op == "rsqrt":
        return w.emit("Reciprocal", w.emit("Sqrt", x))
    if step.op == "mish" and w.opset >= 18 and step.hint["way"] % 2:
        return w.emit("Mish", x)
    return w.emit("Mul", x, w.emit("Tanh", w.emit("Softplus", x)))


def gelu(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x, tanh = w.name(a["self"]), a["approximate"] == "tanh"
    if w.opset >= 20 and step.hint["way"] % 2:
        return w.emit("Gelu", x, approximate=a["approximate"] if tanh or step.hint["way"] % 4 == 1 else None)
    if tanh:
        cube = w.emit("Mul", w.emit("Mul", w.emit("Mul", x, x), x), w.constant(0.044715))
        inner = w.emit("Tanh", w.emit("Mul", w.emit("Add", x, cube), w.constant((2 / np.pi) ** 0.5)))
    else:
        w.need(9)
        inner = w.emit("Erf", w.emit("Div", x, w.constant(2**0.5)))
    return w.emit("Mul", w.emit("Mul", x, w.emit("Add", inner, w.constant(1.0))), w.constant(0.5))


def softplus(w: Writer, step: Step, a: dict[str, Any]) -> str:
    if a["beta"] != 1:
        raise Unspeakable("a softplus of another slope")
    return w.emit("Softplus", w.name(a["self"]))


def elu(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x = w.name(a["self"])
    if a["scale"] == 1:
        return w.emit("Elu", x, alpha=float(a["alpha"]))
    return w.emit("Selu", x, alpha=float(a["alpha"]), gamma=float(a["scale"]))


def leaky(w: Writer, step: Step, a: dict[str, Any]) -> str:
    return w.emit("LeakyRelu", w.name(a["self"]), alpha=float(a["negative_slope"]))


def prelu(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank, slopes = len(w.shape(a["self"])), w.shape(a["weight"])
    slope = (
        w.emit("Reshape", w.name(a["weight"]), w.ints(*slopes, *[1] * max(0, rank - 2)))
        if rank > 1
        else w.name(a["weight"])
    )
    return w.emit("PRelu", w.name(a["self"]), slope)


def cast(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(9)
    number = {torch.float32: 1, torch.int64: 7, torch.int32: 6, torch.bool: 9}[a["dtype"]]
    return w.emit("Cast", w.name(a["self"]), to=number)


def dropout(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x = w.name(a["input"])
    if w.opset < 12:
        return w.emit("Dropout", x, ratio=0.5, results=w.random.choice((1, 2)))
    training = w.constant(False, np.bool_) if w.random.random() < 0.5 else ""
    return w.emit(
        "Dropout", x, w.constant(0.5) if w.random.random() < 0.5 else "", training, results=w.random.choice((1, 2))
    )


def conv(w: Writer, step: Step, a: dict[str, Any]) -> str:
    sizes, pads, x = w.shape(a["weight"])[2:], list(a["padding"]), w.name(a["input"])
    if step.hint["way"] == 0 and any(pads):
        w.need(11)
        x, pads = w.emit("Pad", x, w.ints(0, 0, *pads, 0, 0, *pads), mode="constant"), [0, 0]
    plain = list(a["dilation"]) == [1, 1] and step.hint["way"] % 2
    return w.emit(
        "Conv", x, w.name(a["weight"]), w.name(a["bias"]), strides=list(a["stride"]), pads=pads * 2,
        kernel_shape=None if plain else list(sizes), dilations=None if plain else list(a["dilation"]),
        group=a["groups"],
    )  # fmt: skip


def conv_transpose(w: Writer, step: Step, a: dict[str, Any]) -> str:
    return w.emit(
        "ConvTranspose", w.name(a["input"]), w.name(a["weight"]), w.name(a["bias"]), strides=list(a["stride"]),
        pads=list(a["padding"]) * 2, output_padding=list(a["output_padding"]),
        dilations=list(a["dilation"]), group=a["groups"],
    )  # fmt: skip


def linear(w: Writer, step: Step, a: dict[str, Any]) -> str:
    x, weight, bias = (w.name(a[key]) for key in ("input", "weight", "bias"))
    if len(w.shape(a["input"])) == 2 and step.hint["way"] % 3 and (bias or w.opset >= 11):
        return w.emit("Gemm", x, weight, bias, transB=1)
    y = w.emit("MatMul", x, w.emit("Transpose", weight, perm=[1, 0]))
    return w.emit("Add", *((bias, y) if step.hint["way"] % 2 else (y, bias))) if bias else y


def batch_norm(w: Writer, step: Step, a: dict[str, Any]) -> str:
    channels = w.shape(a["input"])[1]
    if w.stored(a["weight"]):
        weight, bias = w.name(a["weight"]), w.name(a["bias"])
    else:
        weight, bias = w.constant([1.0] * channels), w.constant([0.0] * channels)
    mean, var = w.name(a["running_mean"]), w.name(a["running_var"])
    return w.emit("BatchNormalization", w.name(a["input"]), weight, bias, mean, var, epsilon=a["eps"])


def layer_norm(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(17)
    if a["weight"] is None:
        raise Unspeakable("a normalisation without scale")
    bias = w.name(a["bias"])
    return w.emit(
        "LayerNormalization",
        w.name(a["input"]),
        w.name(a["weight"]),
        bias,
        axis=-len(a["normalized_shape"]),
        epsilon=a["eps"],
    )


def instance_norm(w: Writer, step: Step, a: dict[str, Any]) -> str:
    channels = w.shape(a["input"])[1]
    weight = w.name(a["weight"]) or w.constant([1.0] * channels)
    bias = w.name(a["bias"]) or w.constant([0.0] * channels)
    return w.emit("InstanceNormalization", w.name(a["input"]), weight, bias, epsilon=a["eps"])


def group_norm(w: Writer, step: Step, a: dict[str, Any]) -> str:
    """As PyTorch's exporter writes it for the opsets that have none: rows of groups, normalised, and scaled."""
    n, c, *rest = w.shape(a["input"])
    groups = a["num_groups"]
    weight, bias = w.name(a["weight"]) or w.constant([1.0] * c), w.name(a["bias"]) or w.constant([0.0] * c)
    if w.opset >= 21:
        return w.emit("GroupNormalization", w.name(a["input"]), weight, bias, num_groups=groups, epsilon=a["eps"])
    rows = w.emit("Reshape", w.name(a["input"]), w.ints(0, groups, -1))
    rows = w.emit(
        "InstanceNormalization", rows, w.constant([1.0] * groups), w.constant([0.0] * groups), epsilon=a["eps"]
    )
    y = w.emit("Reshape", rows, w.ints(n, c, *rest))
    tail = [1] * len(rest)
    y = w.emit("Mul", y, w.emit("Reshape", weight, w.ints(c, *tail)))
    return w.emit("Add", y, w.emit("Reshape", bias, w.ints(c, *tail)))


def softmax(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank = len(w.shape(a["self"]))
    if w.opset < 13 and a["dim"] % rank != rank - 1:
        raise Unspeakable("an axis inside")
    axis = a["dim"] % rank if w.opset < 11 else a["dim"]
    return w.emit("Softmax" if step.op == "softmax" else "LogSoftmax", w.name(a["self"]), axis=axis)


def max_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    stride, dilation = a["stride"] or a["kernel_size"], list(np.broadcast_to(a["dilation"], 2).tolist())
    if a["ceil_mode"] or dilation != [1, 1]:
        w.need(10)
    results = 2 if w.opset >= 8 and step.hint["way"] % 3 == 0 else 1
    return w.emit(
        "MaxPool", w.name(a["self"]), kernel_shape=list(a["kernel_size"]), strides=list(stride),
        pads=np.broadcast_to(a["padding"], 2).tolist() * 2, dilations=dilation if dilation != [1, 1] else None,
        ceil_mode=1 if a["ceil_mode"] else None, results=results,
    )  # fmt: skip


def avg_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    if a["divisor_override"] or a["ceil_mode"]:  # where a window hangs over, runtimes divide by different numbers
        raise Unspeakable("a divisor of one's own")
    return w.emit(
        "AveragePool", w.name(a["self"]), kernel_shape=list(a["kernel_size"]), strides=list(a["stride"]),
        pads=np.broadcast_to(a["padding"], 2).tolist() * 2, count_include_pad=int(a["count_include_pad"]),
    )  # fmt: skip


def adaptive_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    if list(a["output_size"]) != [1, 1]:
        raise Unspeakable("a mean of parts")
    return w.emit("GlobalAveragePool", w.name(a["self"]))


_REDUCTIONS = {
    "mean": ("ReduceMean", 18),
    "sum": ("ReduceSum", 13),
    "amax": ("ReduceMax", 18),
    "amin": ("ReduceMin", 18),
}


def reduce(w: Writer, step: Step, a: dict[str, Any]) -> str:
    op, since = _REDUCTIONS[step.op]
    rank = len(w.shape(a["self"]))
    axes = [dim % rank for dim in a["dim"]] if w.opset < 11 else list(a["dim"])
    return w.axes(op, w.name(a["self"]), axes, since, keepdims=int(a["keepdim"]))


def norm(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank = len(w.shape(a["self"]))
    return w.axes(
        f"ReduceL{a['ord']}", w.name(a["self"]), [dim % rank for dim in a["dim"]], 18, keepdims=int(a["keepdim"])
    )


def prod(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank = len(w.shape(a["self"]))
    return w.axes("ReduceProd", w.name(a["self"]), [a["dim"] % rank], 18, keepdims=int(a["keepdim"]))


def argument(w: Writer, step: Step, a: dict[str, Any]) -> str:
    rank = len(w.shape(a["self"]))
    op = "ArgMax" if step.op == "argmax" else "ArgMin"
    return w.emit(op, w.name(a["self"]), axis=a["dim"] % rank, keepdims=int(a["keepdim"]))


def cumsum(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    return w.emit("CumSum", w.name(a["self"]), w.constant(a["dim"], np.int64))


def resize(w: Writer, step: Step, a: dict[str, Any]) -> str:
    """By sizes or scales; the first operand that PyTorch's exporter leaves empty is left empty."""
    w.need(11)
    mode = step.op.removeprefix("upsample_").removesuffix("2d")
    half_pixel = "half_pixel" if 1 in w.shape(step)[2:] else "pytorch_half_pixel"  # the latter has 0 for a single pixel
    corners = "align_corners" if a.get("align_corners") else half_pixel
    kind = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}[mode]
    roi = "" if w.opset >= 13 else w.constant([])
    sizes, scales = "", w.constant([]) if w.opset < 13 else ""
    if a["output_size"] is not None or a["scale_factors"] not in ([2.0, 2.0], [3.0, 2.0], [1.0, 4.0]):
        sizes = w.ints(*w.shape(step))
        if a["output_size"] is None:
            raise Unspeakable("a scale that rounds sizes")
    else:
        scales = w.constant([1.0, 1.0, *a["scale_factors"]])
    return w.emit(
        "Resize", w.name(a["input"]), roi, scales, sizes, mode=kind,
        coordinate_transformation_mode="asymmetric" if mode == "nearest" else corners,
        nearest_mode="floor" if mode == "nearest" else None, cubic_coeff_a=-0.75 if mode == "bicubic" else None,
    )  # fmt: skip


def sample(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(16)
    modes = ("linear", "nearest", "cubic") if w.opset >= 20 else ("bilinear", "nearest", "bicubic")
    return w.emit(
        "GridSample", w.name(a["input"]), w.name(a["grid"]), mode=modes[a["interpolation_mode"]],
        padding_mode=("zeros", "border", "reflection")[a["padding_mode"]], align_corners=int(a["align_corners"]),
    )  # fmt: skip


def is_number(value: Any) -> bool:
    return not isinstance(value, Ref)


SPELLINGS: dict[str, Spell] = {
    **dict.fromkeys(PLAIN, plain),
    **dict.fromkeys(("add", "sub"), added),
    **dict.fromkeys(("silu", "hardsigmoid", "rsqrt", "mish"), composed),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), resize),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("argmax", "argmin"), argument),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "ne": unequal, "fmod": fmod, "clamp": clamp, "gelu": gelu, "softplus": softplus, "elu": elu, "leaky_relu": leaky,
    "prelu": prelu, "to": cast, "dropout": dropout, "conv2d": conv, "conv_transpose2d": conv_transpose,
    "linear": linear,
    "batch_norm": batch_norm, "layer_norm": layer_norm, "instance_norm": instance_norm, "group_norm": group_norm,
    "max_pool2d": max_pool, "avg_pool2d": avg_pool, "adaptive_avg_pool2d": adaptive_pool, "linalg_vector_norm": norm,
    "prod": prod, "cumsum": cumsum, "grid_sampler_2d": sample,
}  # fmt: skip

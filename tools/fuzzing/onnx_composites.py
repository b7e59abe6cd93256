"""How ONNX spells sorting, reading and writing at places, volumes, recurrence and regions."""

from __future__ import annotations

from typing import Any

from fuzzing.onnx_graph import Unspeakable, Writer
from fuzzing.onnx_spellings import Spell
from fuzzing.program import Ref, Step


def top(w: Writer, x: Ref, k: int, dim: int, largest: bool) -> tuple[str, ...]:
    """The largest or smallest few in order, and their places."""
    axis = dim % len(w.shape(x))
    if w.opset < 11 and not largest:
        raise Unspeakable("the smallest few")
    smallest = {} if largest else {"largest": 0}
    if w.opset < 10:
        return w.parts("TopK", w.name(x), results=2, axis=axis, k=k)
    return w.parts("TopK", w.name(x), w.ints(k), results=2, axis=dim if w.opset >= 11 else axis, **smallest)


def sort(w: Writer, step: Step, a: dict[str, Any]) -> str:
    shape, dim = w.shape(a["x"]), a.get("dim", -1)
    return top(w, a["x"], a.get("most") or shape[dim], dim, a["descending"])[0 if step.op == "sort" else 1]


def topk(w: Writer, step: Step, a: dict[str, Any]) -> str:
    values, places = top(w, a["x"], a["k"], a["dim"], a["largest"])
    if step.op == "topk":
        return values
    w.need(11)
    return w.emit("GatherElements", w.name(a["x"]), places, axis=a["dim"])


def kth(w: Writer, step: Step, a: dict[str, Any]) -> str:
    values = top(w, a["x"], a["k"], a["dim"], False)[0]
    last = w.emit("Gather", values, w.ints(a["k"] - 1), axis=a["dim"])
    return last if a["keepdim"] else w.axes("Squeeze", last, [a["dim"]], 13)


def take(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    shape, index = list(w.shape(a["x"])), list(w.shape(a["index"]))
    dim = a["dim"] % len(shape)
    if shape[:dim] != index[:dim] or shape[dim + 1 :] != index[dim + 1 :]:
        raise Unspeakable("an index of another size")
    return w.emit("GatherElements", w.name(a["x"]), w.name(a["index"]), axis=a["dim"])


def index(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    given = [one for one in a["indices"] if one is not None]
    first = len(a["indices"]) - len(given)
    if len(given) == 1:
        return w.emit("Gather", w.name(a["x"]), w.name(given[0]), axis=first)
    if first:
        raise Unspeakable("two dimensions inside")
    return w.emit("GatherND", w.name(a["x"]), _stacked(w, given))


def _stacked(w: Writer, given: list[Ref]) -> str:
    """Indices of the first dimensions side by side."""
    shape = max(map(w.shape, given), key=sum)
    rank, parts = len(shape), []
    for one in given:
        spread = w.name(one) if w.shape(one) == shape else w.emit("Expand", w.name(one), w.ints(*shape))
        parts.append(w.axes("Unsqueeze", spread, [rank], 13))
    return w.emit("Concat", *parts, axis=rank) if len(parts) > 1 else parts[0]


_REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def _combined(w: Writer, reduce: str) -> dict[str, Any]:
    if reduce == "none":
        return {}
    w.need(18 if reduce in ("amax", "amin") else 16)
    return {"reduction": _REDUCTIONS[reduce]}


def scatter(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(9)
    reduce = "sum" if step.op == "scatter_add" else a.get("reduce", "none")
    shape, updates = w.shape(a["index"]), w.name(a.get("updates"))
    if "value" in a:
        updates = w.emit("Expand", w.constant(a["value"]), w.ints(*shape))
    dim = a.get("dim", -1)
    options = {"axis": dim if w.opset >= 11 else dim % len(shape), **_combined(w, reduce)}
    return w.emit(
        "ScatterElements" if w.opset >= 11 else "Scatter", w.name(a["x"]), w.name(a["index"]), updates, **options
    )


def put(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    if None in a["indices"]:
        raise Unspeakable("a dimension inside")
    places = _stacked(w, a["indices"])
    lead = max(map(w.shape, a["indices"]), key=sum)
    whole = (*lead, *w.shape(a["x"])[len(a["indices"]) :])
    values = w.name(a["values"])
    if w.shape(a["values"]) != whole:
        values = w.emit("Expand", values, w.ints(*whole))
    reduce = _combined(w, "sum" if step.op == "accumulated" else "none")
    return w.emit("ScatterND", w.name(a["x"]), places, values, **reduce)


def slices(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(11)
    if a["dim"] % len(w.shape(a["x"])):
        raise Unspeakable("a dimension inside")
    source, alpha = w.name(a["source"]), a.get("alpha", 1)
    if alpha != 1:
        source = w.emit("Mul", source, w.constant(alpha))
    reduce = _combined(w, "sum" if step.op == "index_add" else "none")
    return w.emit("ScatterND", w.name(a["x"]), _stacked(w, [a["index"]]), source, **reduce)


def conv(w: Writer, step: Step, a: dict[str, Any]) -> str:
    bias, stride, padding, dilation, groups = a["rest"]
    return w.emit(
        "Conv", w.name(a["x"]), w.name(a["weight"]), w.name(bias), strides=stride, pads=padding * 2,
        dilations=dilation, group=groups,
    )  # fmt: skip


def conv_transpose(w: Writer, step: Step, a: dict[str, Any]) -> str:
    bias, stride, padding, extra, groups, dilation = a["rest"]
    return w.emit(
        "ConvTranspose", w.name(a["x"]), w.name(a["weight"]), w.name(bias), strides=stride, pads=padding * 2,
        output_padding=extra, dilations=dilation, group=groups,
    )  # fmt: skip


def max_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    kernel, stride, padding, dilation, ceil = a["rest"]
    w.need(10)
    return w.emit(
        "MaxPool", w.name(a["x"]), kernel_shape=kernel, strides=stride, pads=padding * 2, dilations=dilation,
        ceil_mode=int(ceil),
    )  # fmt: skip


def avg_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    kernel, stride, padding, ceil, counted, divisor = a["rest"]
    if divisor or ceil:
        raise Unspeakable("a divisor of one's own")
    return w.emit(
        "AveragePool", w.name(a["x"]), kernel_shape=kernel, strides=stride, pads=padding * 2,
        count_include_pad=int(counted),
    )  # fmt: skip


def adaptive_pool(w: Writer, step: Step, a: dict[str, Any]) -> str:
    if a["size"] != [1, 1, 1]:
        raise Unspeakable("a mean of parts")
    return w.emit("GlobalAveragePool", w.name(a["x"]))


def resize(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(13)
    if a["scale"]:
        raise Unspeakable("a scale that rounds sizes")
    half_pixel = "half_pixel" if 1 in w.shape(step)[2:] or step.op == "nearest_exact" else "pytorch_half_pixel"
    coordinates = "align_corners" if a.get("corners") else half_pixel
    if step.op == "nearest_volume":
        coordinates = "asymmetric"
    rounding = {"nearest_volume": "floor", "nearest_exact": "round_prefer_ceil"}.get(step.op)
    return w.emit(
        "Resize", w.name(a["x"]), "", "", w.ints(*w.shape(step)), mode="nearest" if rounding else "linear",
        coordinate_transformation_mode=coordinates, nearest_mode=rounding,
    )  # fmt: skip


def sample(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(20)
    mode, padding, corners = a["rest"]
    return w.emit(
        "GridSample", w.name(a["x"]), w.name(a["grid"]), mode=("linear", "nearest")[mode],
        padding_mode=("zeros", "border", "reflection")[padding], align_corners=int(corners),
    )  # fmt: skip


def regions(w: Writer, step: Step, a: dict[str, Any]) -> str:
    w.need(16)
    if w.opset >= 22:
        raise Unspeakable("ONNX Runtime has no kernel of that version")
    (height, width), scale, ratio, aligned = a["rest"]
    return w.emit(
        "RoiAlign", w.name(a["x"]), w.name(a["corners"]), w.name(a["images"]), output_height=height,
        output_width=width, spatial_scale=scale, sampling_ratio=ratio, mode="avg",
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )  # fmt: skip


_RECURRENT: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", (0,), {}),
    "rnn_relu": ("RNN", (0,), {"activations": ["Relu"]}),
}
"""The node, the places in PyTorch of ONNX's gates, and attributes of one direction."""


def recurrent(w: Writer, step: Step, a: dict[str, Any]) -> str:
    op, gates, options = _RECURRENT[step.op]
    if a["result"] and a["layers"] > 1:
        raise Unspeakable("the last states of several layers")
    directions, weights = 1 + a["both"], list(a["weights"])
    x = w.name(a["x"])
    x = w.emit("Transpose", x, perm=[1, 0, 2]) if a["first"] else x
    steps, batch = w.shape(a["x"])[int(a["first"])], w.shape(a["x"])[1 - a["first"]]
    hidden = w.shape(weights[1])[1]
    count = 4 if a["biased"] else 2
    repeated = {key: value * directions if isinstance(value, list) else value for key, value in options.items()}
    for layer in range(a["layers"]):
        start = layer * directions * count
        own = [weights[start + d * count :][:count] for d in range(directions)]
        whole = [_side_by_side(w, [group[k] for group in own], gates, hidden) for k in range(count)]
        bias = w.emit("Concat", *whole[2:], axis=1) if a["biased"] else ""
        results = w.parts(
            op, x, whole[0], whole[1], bias, results=3 if op == "LSTM" else 2, hidden_size=hidden,
            direction="bidirectional" if a["both"] else None, **repeated,
        )  # fmt: skip
        if a["result"]:
            return results[int(a["result"])]
        x = w.emit("Transpose", results[0], perm=[0, 2, 1, 3])
        x = w.emit("Reshape", x, w.ints(steps, batch, directions * hidden))
    return w.emit("Transpose", x, perm=[1, 0, 2]) if a["first"] else x


def _side_by_side(w: Writer, parts: list[Ref], gates: tuple[int, ...], hidden: int) -> str:
    """A tensor of each direction with its gates in ONNX's order."""
    made = []
    for part in parts:
        rows = w.ints(*(gate * hidden + row for gate in gates for row in range(hidden)))
        made.append(w.axes("Unsqueeze", w.emit("Gather", w.name(part), rows, axis=0), [0], 13))
    return w.emit("Concat", *made, axis=0)


SPELLINGS: dict[str, Spell] = {
    **dict.fromkeys(("sort", "argsort", "lvc.argsort"), sort),
    **dict.fromkeys(("topk", "gathered_topk"), topk),
    **dict.fromkeys(("scatter", "scatter_value", "lvc.scatter"), scatter),
    **dict.fromkeys(("scatter_add", "scatter_with", "scatter_reduce"), scatter),
    **dict.fromkeys(("index_put", "accumulated"), put),
    **dict.fromkeys(("index_add", "index_copy"), slices),
    **dict.fromkeys(("trilinear", "nearest_volume", "nearest_exact"), resize),
    **dict.fromkeys(_RECURRENT, recurrent),
    "kthvalue": kth, "take_along_dim": take, "index": index, "conv3d": conv, "conv_transpose3d": conv_transpose,
    "max_pool3d": max_pool, "avg_pool3d": avg_pool, "adaptive_avg_pool3d": adaptive_pool, "grid_sampler_3d": sample,
    "roi_align": regions,
}  # fmt: skip

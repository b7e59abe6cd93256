"""Nodes in ONNX's text such that each attribute and optional operand of each operator occurs, old forms included.

Data are ``x``, float[2,4,6,6]; the result is ``y``. The names of `STORED` are stored tensors.
"""

from __future__ import annotations

import numpy as np


def _ramp(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


STORED: dict[str, np.ndarray] = {
    "tenth": np.array(0.1, np.float32),
    "one": np.array(1.0, np.float32),
    "coarse": np.array(0.77, np.float32),
    "two": np.array([0.5, 2], np.float32),
    "four": np.array([0.5, 1, 2, 1.5], np.float32),
    "bias3": np.array([0.5, -1, 2], np.float32),
    "plane": _ramp(6, 6),
    "kernel": _ramp(4, 4, 3, 3),
    "grouped": _ramp(4, 2, 3, 3),
    "bytes": np.arange(72, dtype=np.uint8).reshape(4, 2, 3, 3),
    "matrix": _ramp(3, 2),
    "bytematrix": np.arange(18, dtype=np.uint8).reshape(6, 3),
    "zero": np.array(3, np.uint8),
    "zeros": np.array([3, 7], np.uint8),
    "bias32": np.array([5, -3, 2, 100], np.int32),
    "yes": np.array(True),
    "no": np.array(False),
    "bools": np.array([True, False, True, True]),
    "int": np.array(2),
    "depth": np.array(4),
    "minus": np.array(-1),
    "list": np.array([2]),
    "huge": np.zeros((1025, 1), np.float32),
    "six": np.array([6]),
    "axes": np.array([1, -1]),
    "noaxes": np.array([], np.int64),
    "parts": np.array([1, 3]),
    "starts": np.array([1, 5]),
    "ends": np.array([4, 0]),
    "steps": np.array([2, -2]),
    "lows": np.array([0, 0, 0]),
    "highs": np.array([1, 2, 3]),
    "inner": np.array([1, 2, 3]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "somepads": np.array([1, 2, 2, 1]),
    "lastaxes": np.array([-1, 2]),
    "places": np.array([[1, 0, -1], [2, 3, 1]]),
    "elements": np.arange(288).reshape(2, 4, 6, 6) % 4,
    "index": np.array([[0], [1]]),
    "few": np.arange(12).reshape(2, 1, 2, 3) % 4,
    "vectors": np.arange(16).reshape(2, 4, 2) % 4,
    "thetas": np.array([2, 2, 3]),
    "emptied": np.array([3, 0]),
    "nothing": np.array([0, 3]),
    "flat": np.array([-1]),
    "boxes": np.array([2, 36, 4]),
    "ranks": np.array([2, 4, 36]),
    "sizes": np.array([2, 4, 9, 4]),
    "twosizes": np.array([9, 4]),
    "pairs": np.array([2, 12, 6, 2]),
    "reals": np.array([2, 12, 12, 1]),
    "eight": np.array(8),
    "one64": np.array(1),
    "whole": np.array([2, 4, 6, 6]),
    "fewplaces": np.random.default_rng(0).permutation(128)[:32].reshape(2, 4, 2, 2),
    "series": np.array([4, 3, 24]),
    "batches": np.array([3, 4, 24]),
    "lengths": np.array([2, 4, 3], np.int32),
    "lstmw": _ramp(2, 8, 24) / 4,
    "lstmr": _ramp(2, 8, 2),
    "lstmb": _ramp(2, 16),
    "grubw": _ramp(1, 6, 24) / 4,
    "grur": _ramp(1, 6, 2),
    "grub": _ramp(1, 12),
    "rnnw": _ramp(1, 2, 24) / 4,
    "rnnr": _ramp(1, 2, 2),
    "rnnb": _ramp(1, 4),
    "onefirst": _ramp(1, 3, 2),
    "twofirst": _ramp(2, 3, 2),
    "batchfirst": _ramp(3, 1, 2),
    "peepholes": _ramp(2, 6),
    "rois": np.array([[0, 0, 8, 8], [2, 1, 11, 9], [-3, 4, 5, 14]], np.float32),
    "regions": np.array([[0, 0, 0, 8, 8], [1, 2, 1, 11, 9], [1, 3, 4, 5, 14], [0, 5, 5, 5, 5]], np.float32),
    "images": np.array([0, 1, 1]),
    "columns": np.array([2, 8, 18]),
    "tallpicture": np.array([4, 7]),
    "widepicture": np.array([6, 6]),
    "block": np.array([2, 2]),
    "offsets": _ramp(2, 18, 4, 4) * 2,
    "moreoffsets": _ramp(2, 36, 3, 4) * 3,
    "weights": _ramp(2, 18, 3, 4),
    "halfw": _ramp(1, 8, 24) / 4,
    "halfr": _ramp(1, 8, 2),
    "volume": np.array([2, 2, 2, 6, 6]),
    "triples": np.array([2, 4, 4, 3, 3]),
    "picture": np.array([2, 3, 5, 4]),
    "scales": np.array([1, 1, 1.5, 0.5], np.float32),
    "larger": np.array([1, 1, 1.5, 2], np.float32),
    "roi": np.array([0, 0, 0.2, 0.1, 1, 1, 0.7, 1.2], np.float32),
    "none": np.array([], np.float32),
    "onoff": np.array([-1, 3], np.float32),
}

_WINDOWS = "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]"
_SAME = 'kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER"'
_CONV = "group = 2, kernel_shape = [3, 3], strides = [2, 1], dilations = [1, 2], pads = [1, 0, 2, 1]"
_SAME_CONV = 'group = 2, strides = [2, 2], auto_pad = "SAME_UPPER"'
_BYTES = "q = QuantizeLinear(x, tenth, zero)"
_QCONV = "q, tenth, zero, bytes, tenth, zero, coarse, zero"

_BOXES = "b = Reshape(x, boxes)  r = Reshape(x, ranks)"

_LINES = f"""
20       | c = Slice(x, lows, highs, inner)  t = Reshape(c, thetas)  y = AffineGrid<align_corners = 1>(t, picture)
7 13     | r = Relu(x)  y = ArgMax<axis = 2, keepdims = 0>(r)
13       | r = Relu(x)  y = ArgMax<axis = -1, keepdims = 0, select_last_index = 1>(r)
7 13     | y = ArgMin<axis = 2, keepdims = 0>(x)
13       | r = Relu(x)  y = ArgMin<axis = 1, keepdims = 0, select_last_index = 1>(r)
7        | y = AveragePool<{_WINDOWS}, count_include_pad = 1>(x)
10       | y = AveragePool<{_WINDOWS}, count_include_pad = 1, ceil_mode = 1>(x)
19       | y = AveragePool<{_WINDOWS}, count_include_pad = 1, ceil_mode = 1, dilations = [2, 1]>(x)
7 10 19  | y = AveragePool<{_SAME}>(x)
7 9 14   | y = BatchNormalization<epsilon = 0.1, momentum = 0.5>(x, four, four, four, four)
7 19 24  | y = Cast<to = 6>(x)
12       | y = Celu<alpha = 0.5>(x)
7        | y = Clip<min = -0.5, max = 0.25>(x)
11 13    | y = Clip(x, tenth, one)
13       | y = Clip(x, , one)
9 11     | y = Compress<axis = 1>(x, bools)
9 11     | g = Greater(x, coarse)  f = Reshape(g, flat)  y = Compress(x, f)
9 13     | g = Greater(x, coarse)  y = NonZero(g)
10 11    | {_BOXES}  y = NonMaxSuppression(b, r, int, tenth, coarse)
11       | {_BOXES}  y = NonMaxSuppression<center_point_box = 1>(b, r, int, tenth, coarse)
7 13     | y = Concat<axis = 1>(x, x)
7 11 12  | c = Constant<value = float[6] {{1, 2, 3, 4, 5, 6}}>()  y = Mul(x, c)
12       | c = Constant<value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]>()  y = Mul(x, c)
12       | c = Constant<value_float = 0.3>()  y = Mul(x, c)
12       | c = Constant<value_ints = [0, -1]>()  y = Reshape(x, c)
12       | c = Constant<value_int = 2>()  y = Gather<axis = 1>(x, c)
9        | s = Shape(x)  c = ConstantOfShape<value = float[1] {{3}}>(s)  y = Mul(x, c)
7 11     | y = Conv<{_CONV}>(x, grouped, four)
7 11     | y = Conv<{_SAME_CONV}>(x, grouped)
10       | {_BYTES}  y = ConvInteger<{_CONV}>(q, bytes, zero, zero)
10       | {_BYTES}  y = ConvInteger<{_SAME_CONV}>(q, bytes)
7 11     | y = ConvTranspose<{_CONV}, output_padding = [1, 0]>(x, grouped, four)
11       | y = ConvTranspose<strides = [2, 2], output_shape = [11, 13]>(x, kernel)
11       | y = ConvTranspose<strides = [2, 2], auto_pad = "SAME_LOWER">(x, kernel)
11 14    | y = CumSum<exclusive = 1, reverse = 1>(x, int)
7 13     | y = DepthToSpace<blocksize = 2>(x)
11       | y = DepthToSpace<blocksize = 2, mode = "CRD">(x)
10       | {_BYTES}  y = DequantizeLinear(q, one, zero)
13 21 23 | q = QuantizeLinear<axis = 0>(x, two, zeros)  y = DequantizeLinear<axis = 0>(q, two, zeros)
23       | {_BYTES}  y = DequantizeLinear<output_dtype = 1>(q, one, zero)
12       | y = Dropout<seed = 3>(x, tenth, no)
12       | y = Einsum<equation = "nchw,chwk->nk">(x, k4)
7        | y = Elu<alpha = 0.5>(x)
9        | a = Flatten(x)  y = EyeLike<dtype = 7, k = 1>(a)
7 13     | y = Flatten<axis = 2>(x)
7 13     | y = Gather<axis = 1>(x, places)
11       | y = GatherElements<axis = 1>(x, elements)
12       | y = GatherND<batch_dims = 1>(x, vectors)
20       | y = Gelu<approximate = "tanh">(x)
7 11     | a = Flatten(x)  y = Gemm<alpha = 0.5, beta = 2.0, transA = 1, transB = 1>(a, matrix, bias3)
11       | a = Flatten(x)  y = Gemm<transA = 1, transB = 1>(a, matrix)
7        | y = GlobalLpPool<p = 1>(x)
18       | y = GroupNormalization<num_groups = 2, epsilon = 0.1>(x, two, two)
21       | y = GroupNormalization<num_groups = 2, epsilon = 0.1>(x, four, four)
7        | y = HardSigmoid<alpha = 0.3, beta = 0.4>(x)
7        | y = Hardmax<axis = 2>(x)
13       | y = Hardmax<axis = 1>(x)
7        | y = InstanceNormalization<epsilon = 0.1>(x, four, four)
10       | z = Sub(x, x)  i = Div(x, z)  y = IsInf<detect_negative = 0>(i)
10       | z = Sub(x, x)  i = Div(x, z)  y = IsInf<detect_positive = 0>(i)
7        | y = LRN<size = 3, alpha = 0.1, beta = 0.5, bias = 2.0>(x)
17       | y = LayerNormalization<axis = 2, epsilon = 0.1>(x, plane, plane)
7        | y = LeakyRelu<alpha = 0.3>(x)
7        | y = LogSoftmax<axis = 2>(x)
13       | y = LogSoftmax<axis = 1>(x)
7        | y = LpNormalization<axis = 1, p = 1>(x)
7        | y = LpPool<{_WINDOWS}, p = 3>(x)
18       | y = LpPool<{_WINDOWS}, p = 3, ceil_mode = 1, dilations = [2, 1]>(x)
7 18     | y = LpPool<{_SAME}>(x)
10       | {_BYTES}  y = MatMulInteger(q, bytematrix, zero, zero)
7 8      | y = MaxPool<{_WINDOWS}>(x)
10       | y = MaxPool<{_WINDOWS}, ceil_mode = 1, dilations = [2, 1]>(x)
7 8 10   | y = MaxPool<{_SAME}>(x)
9        | y = MeanVarianceNormalization<axes = [1, 2]>(x)
10       | y = Mod<fmod = 1>(x, one)
9        | i = Cast<to = 7>(x)  y = OneHot<axis = 1>(i, depth, onoff)
7        | y = Pad<mode = "reflect", pads = [0, 0, 1, 2, 0, 0, 2, 1]>(x)
7        | y = Pad<value = 1.5, pads = [0, 0, 1, 2, 0, 0, 2, 1]>(x)
11       | y = Pad<mode = "edge">(x, pads)
11       | y = Pad(x, pads, one)
18       | y = Pad<mode = "reflect">(x, somepads, , lastaxes)
18       | y = Pad(x, somepads, one, lastaxes)
10       | {_BYTES}  y = QLinearConv<{_CONV}>({_QCONV}, bias32)
10       | {_BYTES}  y = QLinearConv<{_SAME_CONV}>({_QCONV})
10 19 21 | {_BYTES}  y = Cast<to = 1>(q)
13 19 23 | q = QuantizeLinear<axis = 0>(x, two, zeros)  y = Cast<to = 1>(q)
21 23    | y = QuantizeLinear<axis = 0, output_dtype = 3>(x, two)
23       | y = RMSNormalization<axis = 2, epsilon = 0.1>(x, plane)
14       | e = ConstantOfShape(nothing)  y = Reshape<allowzero = 1>(e, emptied)
10       | y = Resize<mode = "linear">(x, scales)
11       | y = Resize<nearest_mode = "ceil", coordinate_transformation_mode = "asymmetric">(x, none, scales)
13 18    | y = Resize<nearest_mode = "ceil", coordinate_transformation_mode = "asymmetric">(x, , scales)
11       | y = Resize<mode = "cubic", cubic_coeff_a = -0.5, exclude_outside = 1>(x, none, none, sizes)
13 18    | y = Resize<mode = "cubic", cubic_coeff_a = -0.5, exclude_outside = 1>(x, , , sizes)
11 13 18 | y = Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize",
                      extrapolation_value = 7.0>(x, roi, larger)
18       | y = Resize<mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "not_larger">(x, , , twosizes)
18       | y = Resize<mode = "linear", antialias = 1>(x, , scales)
9        | u = Slice<axes = [1, 2, 3], starts = [0, 0, 0], ends = [1, 2, 3]>(x)  y = Scatter<axis = 1>(x, few, u)
11 16    | u = Slice(x, lows, highs, inner)  y = ScatterElements<axis = 1>(x, few, u)
7        | y = Selu<alpha = 1.5, gamma = 2.0>(x)
15       | y = Shape<start = 1, end = 3>(x)
9        | y = Shrink<bias = 0.3, lambd = 0.7>(x)
7        | y = Slice<axes = [1, 3], starts = [1, 2], ends = [3, 5]>(x)
10       | y = Slice(x, starts, ends, lastaxes, steps)
7        | y = Softmax<axis = 2>(x)
13       | y = Softmax<axis = 1>(x)
7        | y = SpaceToDepth<blocksize = 2>(x)
28       | y = SpaceToDepth<blocksize = 2, mode = "CRD">(x)
7        | z, y = Split<axis = 1, split = [1, 3]>(x)
13       | z, y = Split<axis = 1>(x, parts)
18       | z, y = Split<axis = 1>(x, parts)
18       | z, y = Split<axis = 2, num_outputs = 2>(x)
7 11     | a = Unsqueeze<axes = [0, 2]>(x)  y = Squeeze<axes = [2]>(a)
13       | a = Unsqueeze(x, list)  y = Squeeze(a, list)
24       | y = Swish<alpha = 0.5>(x)
10       | y = ThresholdedRelu<alpha = 0.3>(x)
7        | y = Transpose<perm = [2, 0, 3, 1]>(x)
14       | y = Trilu<upper = 0>(x, minus)
7        | y = Upsample<mode = "linear", scales = [1.0, 1.0, 1.5, 2.0]>(x)
9        | y = Upsample<mode = "linear">(x, larger)
"""
_REDUCED = [f"Reduce{how}" for how in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")]
_BRANCH = "a () => (float[2,4,6,6] p) { p = Exp(x) }", "b () => (float[2,4,6,6] q) { q = Neg(x) }"


def _samples() -> list[tuple[int, str]]:
    lines = [line.partition("|") for line in _LINES.replace("\n      ", " ").strip().splitlines()]
    found = [(int(opset), nodes.strip()) for opsets, _, nodes in lines for opset in opsets.split()]
    for padding in ("zeros", "border", "reflection"):
        for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic"))):
            for i, mode in enumerate(modes):
                how = f'mode = "{mode}", padding_mode = "{padding}", align_corners = {i % 2}'
                found.append((opset, f"p = Reshape(x, pairs)  y = GridSample<{how}>(x, p)"))
    for operator in [*_REDUCED, "ReduceSum"]:
        given = "a = Abs(x)  y = " + operator
        found.append((11, f"{given}<keepdims = 0, axes = [1, -1]>(a)"))
        found.append((18, f"{given}<keepdims = 0>(a, axes)"))
        found.append((18, f"{given}<noop_with_empty_axes = 1>(a, noaxes)"))
    for condition in ("yes", "no"):
        found.append((11, f"y = If ({condition}) <then_branch = {_BRANCH[0]}, else_branch = {_BRANCH[1]}>"))
    return found


SAMPLES = _samples()
STORED["k4"] = _ramp(4, 6, 6, 3)

_SERIES, _BATCHES = "s = Reshape(x, series)", "s = Reshape(x, batches)"
_NAMED = 'activations = ["Sigmoid", "Tanh"]'
SAMPLES += [
    (opset, f"{_SERIES}  {node}")
    for opset in (7, 14)
    for node in (
        'y = LSTM<hidden_size = 2, direction = "bidirectional">(s, lstmw, lstmr)',
        "y = LSTM<hidden_size = 2, clip = 0.4, input_forget = 1>(s, halfw, halfr)",
        'a, b, y = LSTM<hidden_size = 2, direction = "bidirectional", activations = ["Sigmoid", "Tanh", "Softsign", '
        '"Sigmoid", "Relu", "Tanh"]>(s, lstmw, lstmr, lstmb, , twofirst, twofirst, peepholes)',
        "y = LSTM<hidden_size = 2>(s, halfw, halfr, , lengths, onefirst)",
        f'y = GRU<hidden_size = 2, direction = "reverse", {_NAMED}, clip = 0.3>(s, grubw, grur, grub)',
        "y = GRU<hidden_size = 2, linear_before_reset = 1>(s, grubw, grur, grub, lengths, onefirst)",
        'a, y = RNN<hidden_size = 2, direction = "reverse", activations = ["Relu"], clip = 0.5>'
        "(s, rnnw, rnnr, rnnb, , onefirst)",
        "y = RNN<hidden_size = 2>(s, rnnw, rnnr, , lengths)",
    )
]
SAMPLES += [
    *(
        (opset, f'u = Slice(x, lows, highs, inner)  y = ScatterElements<axis = 1, reduction = "{how}">(x, few, u)')
        for opset, how in ((16, "add"), (16, "mul"), (18, "max"), (18, "min"))
    ),
    *(
        (opset, f'u = GatherND(x, index)  y = ScatterND<reduction = "{how}">(x, index, u)')
        for opset, how in ((16, "add"), (16, "mul"), (18, "max"), (18, "min"))
    ),
    (7, "y, i = TopK<axis = 2, k = 3>(x)"),
    (10, "v, i = TopK<axis = 1>(x, list)  y = Cast<to = 1>(i)"),
    (11, "y, i = TopK<axis = -2, largest = 0>(x, list)"),
    (11, "v, i = TopK<axis = 3, sorted = 0>(x, six)  y = ReduceSum<axes = [3]>(v)"),
]

_TURN = (
    "g (int64 n, bool c, float[2,4,6,6] a) => (bool d, float[2,4,6,6] b, float[2,4,6,6] r) "
    "{ d = Identity(c)  f = Cast<to = 1>(n)  b = Add(a, f)  r = Mul(a, x) }"
)
_STEP = "g (float[2,6,6] a, float[2,6,6] p) => (float[2,6,6] b, float[2,6,6] r) { b = Add(a, p)  r = Mul(b, p) }"
SAMPLES += [
    (11, f"b, y = Loop(int, yes, x) <body = {_TURN}>"),
    (11, f"y, r = Loop(int, , x) <body = {_TURN}>"),
    (11, f"b, y = Scan<num_scan_inputs = 1, body = {_STEP}, scan_input_axes = [1], scan_output_axes = [-1]>(z, x)"),
    (11, f"b, y = Scan<num_scan_inputs = 1, body = {_STEP}, scan_input_axes = [1], scan_input_directions = [1]>(z, x)"),
    (
        11,
        f"b, y = Scan<num_scan_inputs = 1, body = {_STEP}, scan_input_axes = [1], scan_output_directions = [1]>(z, x)",
    ),
]
SAMPLES[-3:] = [(opset, f"z = ReduceSum<axes = [1], keepdims = 0>(x)  {nodes}") for opset, nodes in SAMPLES[-3:]]

_REGIONS = "output_height = 2, output_width = 3, sampling_ratio = 2, spatial_scale = 0.5"
SAMPLES += [
    (7, "y = MaxRoiPool<pooled_shape = [3, 2], spatial_scale = 0.5>(x, regions)"),
    (10, f"y = RoiAlign<{_REGIONS}>(x, rois, images)"),
    (10, f'y = RoiAlign<{_REGIONS}, mode = "max">(x, rois, images)'),
    (16, f'y = RoiAlign<{_REGIONS}, coordinate_transformation_mode = "output_half_pixel">(x, rois, images)'),
    (16, f'y = RoiAlign<{_REGIONS}, mode = "max">(x, rois, images)'),
    (18, "c = Reshape(x, columns)  y = Col2Im(c, tallpicture, block)"),
    (
        18,
        "c = Reshape(x, columns)  "
        "y = Col2Im<dilations = [1, 2], pads = [0, 1, 1, 1], strides = [2, 1]>(c, widepicture, block)",
    ),
    (19, "y = DeformConv(x, kernel, offsets)"),
    (
        19,
        "y = DeformConv<kernel_shape = [3, 3], dilations = [1, 2], strides = [2, 1], pads = [1, 1, 1, 1], group = 2, "
        "offset_group = 2>(x, grouped, moreoffsets, four, weights)",
    ),
    (20, "v = Reshape(x, volume)  p = Reshape(x, triples)  y = GridSample(v, p)"),
]
SAMPLES += [
    (26, f"{_BATCHES}  y = LSTM<hidden_size = 2, layout = 1>(s, halfw, halfr)"),
    (26, f"{_BATCHES}  y = GRU<hidden_size = 2, layout = 1>(s, grubw, grur)"),
    (26, f"{_BATCHES}  y = RNN<hidden_size = 2, layout = 1>(s, rnnw, rnnr)"),
]

_PAIRS, _REALS = "c = Reshape(x, pairs)", "c = Reshape(x, reals)"
_PLACES = "m, p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]{}>(x)"
SAMPLES += [
    (17, f"{_PAIRS}  y = DFT<axis = 2, inverse = 1>(c, eight)"),
    (17, f"{_REALS}  y = DFT<axis = 1, onesided = 1>(c)"),
    (20, f"{_PAIRS}  y = DFT<inverse = 1>(c, eight, one64)"),
    (20, f"{_REALS}  y = DFT<onesided = 1>(c, eight)"),
    *(
        (opset, f"{_PLACES.format(order)}  y = Cast<to = 1>(p)")
        for opset in (8, 10, 11, 12, 22)
        for order in ("", ", storage_order = 1")
    ),
    *(
        (
            opset,
            "m, p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)  "
            "y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]>(m, p, whole)",
        )
        for opset in (9, 11, 22)
    ),
    *(
        (
            opset,
            "t = MaxPool<kernel_shape = [3, 3], strides = [3, 3]>(x)  "
            "y = MaxUnpool<kernel_shape = [3, 3], strides = [2, 2], pads = [0, 1, 1, 0]>(t, fewplaces)",
        )
        for opset in (9, 11, 22)
    ),
]

_STEEP = "activation_alpha = [0.5], activation_beta = [0.5]"
REFUSED: list[tuple[int, str, str]] = [
    (8, f"y, r = Scan<num_scan_inputs = 1, body = {_STEP}, directions = [1]>(list, x, x)", "a batch and lengths"),
    (11, f"y, r = Scan<num_scan_inputs = 1, body = {_STEP}>(x, huge)", "more than 1024 turns"),
    *(
        (opset, f"{_SERIES}  y = {op}<hidden_size = 2, {_STEEP}>(s, {w}, {r})", "has activations with parameters")
        for opset in (7, 14)
        for op, w, r in (("LSTM", "halfw", "halfr"), ("GRU", "grubw", "grur"), ("RNN", "rnnw", "rnnr"))
    ),
    (7, "y = BatchNormalization<spatial = 0>(x, x, x, x, x)", "normalises every element on its own"),
    (14, "y, m, v = BatchNormalization<training_mode = 1>(x, four, four, four, four)", "is in training mode"),
    (12, 'y = Constant<value_string = "a">()', "holds text or a sparse tensor"),
    (12, 'y = Constant<value_strings = ["a", "b"]>()', "holds text or a sparse tensor"),
    (23, "q = QuantizeLinear<block_size = 2, axis = 3>(x, x)  y = Cast<to = 1>(q)", "quantises in blocks"),
    (23, f"{_BYTES}  y = DequantizeLinear<block_size = 2, axis = 3>(q, x)", "quantises in blocks"),
    (21, "q = QuantizeLinear<block_size = 2, axis = 3>(x, x)  y = Cast<to = 1>(q)", "quantises in blocks"),
    (21, f"{_BYTES}  y = DequantizeLinear<block_size = 2, axis = 3>(q, x)", "quantises in blocks"),
    (12, "y = Dropout(x, tenth, yes)", "is in training mode"),
    (20, 'v = Reshape(x, volume)  p = Reshape(x, triples)  y = GridSample<mode = "cubic">(v, p)', "by cubes"),
    (22, 'y = RoiAlign<output_height = 2, mode = "max">(x, rois, images)', "give it a sampling_ratio"),
    (11, "y = Unique<axis = 1, sorted = 0>(x)", "whose shape depends on the data"),
]
"""Opset, nodes, and a part of the reason."""

IRRELEVANT: dict[tuple[str, str], str] = {
    **{(op, "saturate"): "of 8-bit floating point" for op in ("Cast", "CastLike", "QuantizeLinear")},
    **{(op, "round_mode"): "of 8-bit floating point" for op in ("Cast", "CastLike")},
    **{(op, "stash_type"): "computed in float32" for op in ("GroupNormalization", "RMSNormalization", "Range")},
    ("LayerNormalization", "stash_type"): "computed in float32; it is the type of the statistics, which has a test",
    ("QuantizeLinear", "precision"): "computed in float32",
    ("Dropout", "ratio"): "of training",
    ("Dropout", "seed"): "of training",
    ("BatchNormalization", "momentum"): "of training",
    ("Constant", "sparse_value"): "refused as text is; the parser of the samples has no word for it",
}
"""Attributes and operands that change nothing here, and why."""

"""Contractions, normalisations, poolings, reductions and resampling, with all their options."""

from __future__ import annotations

import math

from fuzzing.program import Ref
from fuzzing.scope import Move, Scope, Unfit

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 8, 12, 16, 16, 17, 24, 32, 33, 58)


def divisors(*numbers: int) -> list[int]:
    """The numbers that divide all, from 1 up."""
    most = math.gcd(*numbers)
    return [n for n in range(1, most + 1) if most % n == 0]


def convolve(scope: Scope, x: Ref, made: int | None = None, kernel: int | None = None, *, same: bool = False) -> Ref:
    """A convolution with drawn options; ``same`` keeps the size."""
    _, channels, height, width = scope.shape(x)
    made = made or scope.either(*CHANNELS)
    sizes = (
        (kernel, kernel)
        if kernel
        else scope.either(
            (1, 1), (1, 1), (3, 3), (3, 3), (3, 3), (5, 5), (7, 7), (2, 2), (1, 3), (3, 1), (1, 7), (4, 3)
        )
    )
    dilation = [1, 1] if same or scope.chance(0.8) else [scope.either(1, 2, 3), scope.either(1, 2)]
    stride = [1, 1] if same or scope.chance(0.6) else scope.either([2, 2], [2, 2], [2, 1], [1, 2], [3, 3])
    groups = scope.either(*divisors(channels, made)) if scope.chance(0.3) else 1
    if scope.chance(0.2) and not same:
        groups, made = channels, channels * scope.either(1, 1, 1, 2)
    if same:
        sizes = tuple(size | 1 for size in sizes)
        padding = [size // 2 for size in sizes]
    else:
        padding = [size // 2 if scope.chance(0.7) else scope.random.randrange(size) for size in sizes]
    if made * channels // groups * sizes[0] * sizes[1] * height * width > 20_000_000:
        raise Unfit("too much work")
    weight = scope.store("weight", made, channels // groups, *sizes)
    bias = scope.store("bias", made) if scope.chance(0.7) else None
    return scope.emit("conv2d", x, weight, bias, stride, padding, dilation, groups)


def conv2d(scope: Scope) -> None:
    y = convolve(scope, scope.image())
    if scope.chance(0.5):
        y = normal(scope, y)
    if scope.chance(0.6):
        activation(scope, y)


def conv_transpose2d(scope: Scope) -> None:
    x = scope.image()
    _, channels, height, width = scope.shape(x)
    made, groups = scope.either(*CHANNELS), 1
    if scope.chance(0.3):
        groups = scope.either(*divisors(channels))
        made = groups * scope.either(1, 2, 4)
    kernel, stride = (
        scope.either((2, 2), (2, 2), (3, 3), (4, 4), (1, 1), (3, 2)),
        scope.either([2, 2], [2, 2], [1, 1], [3, 3], [1, 2]),
    )
    padding = [scope.random.randrange(size) for size in kernel] if scope.chance(0.5) else [0, 0]
    extra = [scope.random.randrange(step) for step in stride] if scope.chance(0.4) else [0, 0]
    dilation = scope.either([1, 1], [1, 1], [1, 1], [2, 2], [1, 2])
    if made * channels // groups * math.prod(kernel) * height * width > 20_000_000:
        raise Unfit("too much work")
    weight = scope.store("weight", channels, made // groups, *kernel)
    bias = scope.store("bias", made) if scope.chance(0.6) else None
    scope.emit("conv_transpose2d", x, weight, bias, stride, padding, extra, groups, dilation)


def linear(scope: Scope) -> None:
    x = scope.pick()
    if not scope.shape(x):
        raise Unfit("a scalar")
    made = scope.either(*CHANNELS, 64, 100)
    weight = scope.store("weight", made, scope.shape(x)[-1])
    y = scope.emit("linear", x, weight, scope.store("bias", made) if scope.chance(0.7) else None)
    if scope.chance(0.5):
        activation(scope, y)


def matmul(scope: Scope) -> None:
    """Two computed factors, or one stored; vectors and broadcast batches among them."""
    a = scope.pick()
    shape = scope.shape(a)
    if not shape:
        raise Unfit("a scalar")
    n = scope.either(1, 2, 3, 5, 8, 16, 17, 33)
    way = scope.random.randrange(5)
    if way == 0 and len(shape) >= 2:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        b = scope.emit("permute", a, order)
    elif way == 1:
        b = scope.store("weight", shape[-1])
    elif way == 2 and len(shape) > 2:
        batch = [1 if scope.chance(0.5) else size for size in shape[:-2]][scope.random.randrange(len(shape) - 1) :]
        b = scope.store("weight", *batch, shape[-1], n)
    else:
        b = scope.store("weight", shape[-1], n)
    if way == 4:
        a, b = scope.emit("matmul", scope.store("weight", n, shape[-2] if len(shape) > 1 else shape[0]), a), a
        return
    scope.emit("matmul", a, b)


def normal(scope: Scope, x: Ref) -> Ref:
    channels = scope.shape(x)[1]
    weight, bias = (
        (scope.store("gamma", channels), scope.store("bias", channels)) if scope.chance(0.85) else (None, None)
    )
    mean, var = scope.store("mean", channels), scope.store("var", channels)
    return scope.emit("batch_norm", x, weight, bias, mean, var, False, 0.1, scope.either(1e-5, 1e-3), True)


def batch_norm(scope: Scope) -> None:
    normal(scope, scope.image())


def layer_norm(scope: Scope) -> None:
    x = scope.pick()
    shape = scope.shape(x)
    if not shape:
        raise Unfit("a scalar")
    dims = list(shape[-scope.either(1, 1, 1, min(2, len(shape))) :])
    weight, bias = (scope.store("gamma", *dims), scope.store("bias", *dims)) if scope.chance(0.8) else (None, None)
    scope.emit("layer_norm", x, dims, weight, bias, scope.either(1e-5, 1e-6, 1e-3))


def group_norm(scope: Scope) -> None:
    x = scope.image()
    channels = scope.shape(x)[1]
    weight, bias = (
        (scope.store("gamma", channels), scope.store("bias", channels)) if scope.chance(0.8) else (None, None)
    )
    scope.emit("group_norm", x, scope.either(*divisors(channels)), weight, bias, scope.either(1e-5, 1e-3))


def instance_norm(scope: Scope) -> None:
    x = scope.image()
    channels = scope.shape(x)[1]
    weight, bias = (
        (scope.store("gamma", channels), scope.store("bias", channels)) if scope.chance(0.7) else (None, None)
    )
    scope.emit("instance_norm", x, weight, bias, None, None, True, 0.1, scope.either(1e-5, 1e-3), True)


def softmax(scope: Scope) -> None:
    x = scope.pick()
    dim = scope.axis(x)
    scope.emit(
        scope.either("softmax", "softmax", "log_softmax"), x, dim if scope.chance(0.5) else dim - len(scope.shape(x))
    )


def pool(scope: Scope) -> None:
    x = scope.image()
    height, width = scope.shape(x)[2:]
    kernel = [scope.either(1, 2, 2, 3, 3, 5, 7), scope.either(2, 2, 3, 3, 5)]
    if scope.chance(0.6):
        kernel = [kernel[1]] * 2
    if scope.chance(0.1):
        kernel = [height, width]
    stride = scope.either([1, 1], [2, 2], [2, 2], [2, 1], [3, 2], kernel)
    padding = [scope.random.randrange(size // 2 + 1) for size in kernel] if scope.chance(0.5) else [0, 0]
    ceil = scope.chance(0.3)
    if scope.chance(0.5):
        dilation = scope.either([1, 1], [1, 1], [2, 2], [1, 2])
        scope.emit("max_pool2d", x, kernel, stride, padding, dilation, ceil)
    else:
        divisor = scope.either(None, None, None, 3)
        scope.emit("avg_pool2d", x, kernel, stride, padding, ceil, scope.chance(0.5), divisor)


def adaptive_pool(scope: Scope) -> None:
    x = scope.image()
    height, width = scope.shape(x)[2:]
    size = scope.either([1, 1], [1, 1], [2, 2], [3, 2], [min(5, height), min(7, width)], [7, 7])
    scope.emit("adaptive_avg_pool2d", x, size)


def reduce(scope: Scope) -> None:
    x = scope.pick()
    rank = len(scope.shape(x))
    if not rank:
        raise Unfit("a scalar")
    dims = sorted(scope.random.sample(range(rank), scope.either(1, 1, min(2, rank), rank)))
    if scope.chance(0.3):
        dims = [dim - rank for dim in dims]
    op, keep = (
        scope.either("mean", "mean", "sum", "amax", "amin", "linalg_vector_norm", "prod", "argmax", "argmin", "cumsum"),
        scope.chance(0.5),
    )
    if op in ("argmax", "argmin", "prod"):
        scope.emit(op, x, dims[0], keep)
    elif op == "cumsum":
        scope.emit(op, x, dims[0])
    elif op == "linalg_vector_norm":
        scope.emit(op, x, scope.either(1, 2, 2), dims, keep)
    else:
        scope.emit(op, x, dims, keep)


def upsample(scope: Scope) -> None:
    x = scope.image()
    height, width = scope.shape(x)[2:]
    op = scope.either("upsample_nearest2d", "upsample_bilinear2d", "upsample_bilinear2d", "upsample_bicubic2d")
    corners = [] if op == "upsample_nearest2d" else [scope.chance(0.5)]
    if scope.chance(0.5):
        scales = scope.either([2.0, 2.0], [2.0, 2.0], [3.0, 2.0], [0.5, 0.5], [1.5, 1.5], [1.0, 4.0])
        scope.emit(op, x, None, *corners, scales)
    else:
        size = scope.either([2 * height, 2 * width], [7, 5], [height + 1, width + 3], [1, 1], [height, width])
        scope.emit(op, x, size, *corners, None)


def sample(scope: Scope) -> None:
    """An image at stored places, or at those that two channels say; the nearest pixel is left out, since it jumps."""
    x = scope.image()
    images, channels, height, width = scope.shape(x)
    if channels > 1 and scope.chance(0.5):
        places = scope.emit("permute", scope.emit("slice", x, 1, 0, 2, 1), [0, 2, 3, 1])
    else:
        places = scope.store("places", images, *scope.either((3, 5), (height, width), (1, 8)), 2)
    mode, padding = scope.either(0, 0, 2), scope.either(0, 0, 1, 2)
    scope.emit("grid_sampler_2d", x, places, mode, padding, scope.chance(0.5))


PLAIN = ("relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "mish", "relu")


def activation(scope: Scope, x: Ref) -> Ref:
    """One of the functions that stand behind layers, with its options."""
    way = scope.random.randrange(12)
    if way == 0:
        low, high = scope.either((0, 6), (-1, 1), (0.5, 2.0), (None, 0.25), (-0.5, None), (0, None))
        return scope.emit("clamp", x, low, high)
    if way == 1:
        return scope.emit("gelu", x, approximate=scope.either("none", "tanh"))
    if way == 2:
        return scope.emit("leaky_relu", x, scope.either(0.01, 0.2, -0.3))
    if way == 3:
        return scope.emit("elu", x, *scope.either((1,), (0.5,), (1.67, 1.05)))
    if way == 4:
        return scope.emit("softplus", x, *scope.either((), (2, 10)))
    if way == 5:
        shape = scope.shape(x)
        slopes = scope.either(1, shape[1] if len(shape) > 1 else 1)
        return scope.emit("prelu", x, scope.store("bias", slopes))
    return scope.emit(scope.either(*PLAIN), x)


def some_activation(scope: Scope) -> None:
    activation(scope, scope.pick())


def activations(scope: Scope) -> None:
    """Several in a row, which one kernel may compute."""
    x = scope.pick()
    for _ in range(scope.either(2, 3, 4)):
        x = activation(scope, x)


MOVES: dict[Move, float] = {
    conv2d: 6,
    conv_transpose2d: 1.5,
    linear: 3,
    matmul: 2,
    batch_norm: 0.7,
    layer_norm: 1,
    group_norm: 0.7,
    instance_norm: 0.5,
    softmax: 1,
    pool: 2.5,
    adaptive_pool: 0.7,
    reduce: 2.5,
    upsample: 1.2,
    sample: 0.6,
    some_activation: 3,
    activations: 1,
}

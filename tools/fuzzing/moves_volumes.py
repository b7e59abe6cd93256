"""Volumes, sequences and regions: three-dimensional layers, recurrence, sampling and resizing of other kinds."""

from __future__ import annotations

import math

import torch

from fuzzing.moves_layers import CHANNELS, divisors
from fuzzing.program import Ref
from fuzzing.scope import Move, Scope, Unfit

WORK = 4_000_000
"""So many products at most, since three-dimensional kernels stand for many."""


def volume(scope: Scope) -> Ref:
    """A value of five dimensions; an image is brought to it if there is none."""
    if scope.chance(0.7) and scope.values(lambda s: s.dtype is torch.float32 and len(s.shape) == 5):
        return scope.pick(5)
    x = scope.image()
    n, c, h, w = scope.shape(x)
    depth = scope.either(*divisors(c))
    if scope.chance(0.3):
        return scope.emit("reshape", x, [n, 1, c, h, w])
    return scope.emit("reshape", x, [n, c // depth, depth, h, w])


def flattened(scope: Scope, y: Ref) -> None:
    """An image again, now and then: depth becomes a part of the channels."""
    n, c, d, h, w = scope.shape(y)
    if scope.chance(0.5):
        scope.emit("reshape", y, [n, c * d, h, w])


def each(scope: Scope, *choices: int) -> list[int]:
    return [scope.either(*choices) for _ in range(3)]


def conv3d(scope: Scope) -> None:
    x = volume(scope)
    _, channels, *sizes = scope.shape(x)
    made, kernel = scope.either(*CHANNELS[:10]), each(scope, 1, 1, 2, 3, 3)
    groups = scope.either(*divisors(channels, made)) if scope.chance(0.3) else 1
    stride, dilation = each(scope, 1, 1, 2), each(scope, 1, 1, 1, 2)
    padding = [scope.random.randrange(size) for size in kernel]
    if made * channels // groups * math.prod(kernel) * math.prod(sizes) > WORK:
        raise Unfit("too much work")
    weight = scope.store("weight", made, channels // groups, *kernel)
    bias = scope.store("bias", made) if scope.chance(0.7) else None
    flattened(scope, scope.emit("conv3d", x, weight, bias, stride, padding, dilation, groups))


def conv_transpose3d(scope: Scope) -> None:
    x = volume(scope)
    _, channels, *sizes = scope.shape(x)
    groups = scope.either(*divisors(channels)) if scope.chance(0.3) else 1
    made, kernel, stride = groups * scope.either(1, 2, 4), each(scope, 1, 2, 2, 3), each(scope, 1, 2, 2)
    padding = [scope.random.randrange(size) for size in kernel] if scope.chance(0.5) else [0, 0, 0]
    extra = [scope.random.randrange(step) for step in stride] if scope.chance(0.4) else [0, 0, 0]
    dilation = scope.either([1, 1, 1], [1, 1, 1], [2, 1, 2])
    if made * channels // groups * math.prod(kernel) * math.prod(sizes) > WORK:
        raise Unfit("too much work")
    weight = scope.store("weight", channels, made // groups, *kernel)
    bias = scope.store("bias", made) if scope.chance(0.6) else None
    flattened(scope, scope.emit("conv_transpose3d", x, weight, bias, stride, padding, extra, groups, dilation))


def pool3d(scope: Scope) -> None:
    x = volume(scope)
    sizes = scope.shape(x)[2:]
    if scope.chance(0.25):
        flattened(scope, scope.emit("adaptive_avg_pool3d", x, [scope.either(1, 2, 3, size) for size in sizes]))
        return
    kernel = [min(size, scope.either(1, 2, 3)) for size in sizes]
    stride = scope.either([1, 1, 1], [2, 2, 2], [1, 2, 3], kernel)
    padding = [scope.random.randrange(size // 2 + 1) for size in kernel]
    ceil = scope.chance(0.3)
    if scope.chance(0.5):
        y = scope.emit("max_pool3d", x, kernel, stride, padding, scope.either([1, 1, 1], [1, 2, 1]), ceil)
    else:
        divisor = scope.either(None, None, 3)
        y = scope.emit("avg_pool3d", x, kernel, stride, padding, ceil, scope.chance(0.5), divisor)
    flattened(scope, y)


def sample3d(scope: Scope) -> None:
    x = volume(scope)
    images = scope.shape(x)[0]
    grid = scope.store("places", images, *scope.either((1, 2, 3), (2, 1, 5), (3, 3, 2)), 3)
    scope.emit("grid_sampler_3d", x, grid, scope.either(0, 0, 1), scope.either(0, 1, 2), scope.chance(0.5))


def resize3d(scope: Scope) -> None:
    x = volume(scope)
    size, scale = resized(scope, scope.shape(x)[2:])
    if scope.chance(0.6):
        flattened(scope, scope.emit("trilinear", x, size, scale, scope.chance(0.5)))
    else:
        flattened(scope, scope.emit("nearest_volume", x, size, scale))


def resized(scope: Scope, sizes: tuple[int, ...]) -> tuple[list[int] | None, list[float] | None]:
    """Either sizes or factors."""
    if scope.chance(0.4):
        return None, [scope.either(0.5, 0.75, 1.0, 1.5, 2.0) for _ in sizes]
    return [scope.either(1, 2, 5, size, size + 1, 2 * size, max(1, size // 2)) for size in sizes], None


def resize(scope: Scope) -> None:
    """Antialiased, or by exact neighbours; what is one pixel wide PyTorch filters in another way than it says."""
    x = scope.image()
    sizes = scope.shape(x)[2:]
    size, scale = resized(scope, sizes)
    if scope.chance(0.5):
        scope.emit("nearest_exact", x, size, scale)
    elif 1 in sizes or 1 in (size or [int(n * factor) for n, factor in zip(sizes, scale or (), strict=True)]):
        raise Unfit("one pixel")
    else:
        scope.emit("antialiased", x, size, scale, scope.either("bilinear", "bilinear", "bicubic"))


def recurrence(scope: Scope) -> None:
    """LSTM, GRU and RNN over a sequence, in layers and both directions; all states, or those at the end."""
    x = scope.pick(3)
    first = scope.chance(0.5)
    steps, features = scope.shape(x)[int(first)], scope.shape(x)[2]
    if steps > 8:
        x = scope.emit("slice", x, int(first), 0, scope.either(3, 8), 1)
    op, gates = scope.either(("lstm", 4), ("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1))
    hidden, layers, both, biased = (
        scope.either(1, 3, 5, 8, 16),
        scope.either(1, 1, 2),
        scope.chance(0.4),
        scope.chance(0.8),
    )
    weights: list[Ref] = []
    for layer in range(layers):
        for _ in range(1 + both):
            read = hidden * (1 + both) if layer else features
            weights += [scope.store("weight", gates * hidden, read), scope.store("weight", gates * hidden, hidden)]
            weights += [scope.store("bias", gates * hidden) for _ in range(2 * biased)]
    result = scope.either(0, 0, 0, 1, 2 if op == "lstm" else 1)
    scope.emit(op, x, weights, biased, layers, both, first, result)


def regions(scope: Scope) -> None:
    """Regions of stored places, moved by a computed number now and then."""
    x = scope.image()
    images, channels = scope.shape(x)[:2]
    count = scope.either(1, 3, 5)
    which, corners = scope.store(f"index{images}", count, dtype=torch.int64), scope.store("corners", count, 4)
    if scope.chance(0.4):
        moved = scope.emit("sigmoid", scope.emit("amax", x, list(range(4)), False))
        corners = scope.emit("add", corners, moved)
    size, scale, ratio = (
        scope.either([1, 1], [2, 2], [2, 3], [3, 1]),
        scope.either(1.0, 0.5, 0.25),
        scope.either(1, 2, 3),
    )
    if scope.chance(0.4) and channels % math.prod(size) == 0:
        scope.emit("ps_roi_align", x, which, corners, size, scale, ratio)
    else:
        scope.emit("roi_align", x, which, corners, size, scale, ratio, scope.chance(0.5))


def deform(scope: Scope) -> None:
    """A convolution whose windows another one bends, with a mask or without."""
    x = scope.image()
    _, channels, height, width = scope.shape(x)
    made, kernel = scope.either(*CHANNELS[:10]), scope.either((1, 1), (3, 3), (3, 3), (2, 3))
    groups = scope.either(*divisors(channels, made)) if scope.chance(0.3) else 1
    bends = scope.either(*divisors(channels)[:3])
    stride, dilation = scope.either([1, 1], [1, 1], [2, 1]), scope.either([1, 1], [1, 1], [2, 1])
    padding = [scope.random.randrange(size) for size in kernel]
    if made * channels * math.prod(kernel) * height * width > WORK:
        raise Unfit("too much work")
    how = (stride, padding, dilation)
    count = bends * math.prod(kernel)
    offset = scope.emit("conv2d", x, scope.store("weight", 2 * count, channels, *kernel), None, *how, 1)
    mask = None
    if scope.chance(0.5):
        mask = scope.emit("conv2d", x, scope.store("weight", count, channels, *kernel), None, *how, 1)
        mask = scope.emit("sigmoid", mask)
    weight = scope.store("weight", made, channels // groups, *kernel)
    bias = scope.store("bias", made) if scope.chance(0.6) else None
    scope.emit("deform_conv2d", x, weight, offset, bias, *how, mask)


MOVES: dict[Move, float] = {
    conv3d: 1.5,
    conv_transpose3d: 0.7,
    pool3d: 1,
    sample3d: 0.7,
    resize3d: 0.7,
    resize: 1,
    recurrence: 1,
    regions: 1,
    deform: 0.7,
}

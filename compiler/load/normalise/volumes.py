"""Convolution and pooling over three axes, by those over two: depth becomes a part of the batch or of the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

from lvc.compiler.load.normalise.builder import Rule
from lvc.compiler.load.normalise.composite import composite
from lvc.compiler.load.normalise.window_sizes import Sizes, steps, triple

aten = torch.ops.aten


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """One convolution over planes, whose channels are those of all planes that a window touches."""
    if x.dim() == 4:
        return conv3d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    (step, *strides), (pad, *pads), (gap, *gaps) = triple(stride), triple(padding), triple(dilation)
    taps = weight.shape[2]
    x = F.pad(x, (0, 0, 0, 0, pad, pad))
    depth = (x.shape[2] - gap * (taps - 1) - 1) // step + 1
    parts = [x[:, :, k * gap : k * gap + (depth - 1) * step + 1 : step] for k in range(taps)]
    planes = torch.stack(parts, 2).permute(0, 3, 1, 2, 4, 5)
    planes = planes.reshape(len(x) * depth, x.shape[1] * taps, *x.shape[3:])
    flat = weight.reshape(weight.shape[0], weight.shape[1] * taps, *weight.shape[3:])
    made = F.conv2d(planes, flat, bias, strides, pads, gaps, groups)
    return made.reshape(len(x), depth, *made.shape[1:]).permute(0, 2, 1, 3, 4)


def _conv3d_padded_by_name(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(triple(dilation), weight.shape[2:], strict=True)]
        x = F.pad(x, [side for total in reversed(totals) for side in (total // 2, total - total // 2)])
    return conv3d(x, weight, bias, stride, 0, dilation, groups)


def conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """One transposed convolution of every plane for all planes that it reaches, which are then added up."""
    if x.dim() == 4:
        options = (bias, stride, padding, output_padding, groups, dilation)
        return conv_transpose3d(x.unsqueeze(0), weight, *options).squeeze(0)
    (step, *strides), (pad, *pads) = triple(stride), triple(padding)
    (gap, *gaps), (extra, *extras) = triple(dilation), triple(output_padding)
    taps, (n, _, depth) = weight.shape[2], x.shape[:3]
    planes = x.permute(0, 2, 1, 3, 4).reshape(n * depth, x.shape[1], *x.shape[3:])
    flat = weight.reshape(weight.shape[0], weight.shape[1] * taps, *weight.shape[3:])
    made = F.conv_transpose2d(planes, flat, None, strides, pads, extras, groups, gaps)
    size = made.shape[2:]
    made = made.reshape(n, depth, -1, taps, *size).permute(3, 0, 2, 1, 4, 5)
    reach = (depth - 1) * step + gap * (taps - 1) + 1 + extra
    total = sum(_spread(made[k], step, k * gap, reach) for k in range(taps))
    assert isinstance(total, Tensor)
    total = total[:, :, pad : reach - pad]
    return total if bias is None else total + bias.reshape(-1, 1, 1, 1)


def _spread(x: Tensor, step: int, start: int, size: int) -> Tensor:
    """Planes ``step`` apart from ``start`` on, zeros between them."""
    n, channels, depth, *plane = x.shape
    wide = F.pad(x.unsqueeze(3), (0, 0, 0, 0, 0, step - 1)).reshape(n, channels, depth * step, *plane)
    wide = wide[:, :, : (depth - 1) * step + 1]
    return F.pad(wide, (0, 0, 0, 0, start, size - start - wide.shape[2]))


def max_pool3d(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: bool = False
) -> Tensor:
    """The largest of each plane's windows, then of those one behind the other."""
    (size, *sizes), (step, *strides) = triple(kernel), triple(steps(stride, kernel))
    (pad, *pads), (gap, *gaps) = triple(padding), triple(dilation)
    flat = F.max_pool2d(_planes(x), sizes, strides, pads, gaps, ceil_mode)
    columns = _columns(flat, x.shape)
    made = F.max_pool2d(columns, (size, 1), (step, 1), (pad, 0), (gap, 1), ceil_mode)
    return made.reshape(*x.shape[:-3], made.shape[-2], *flat.shape[-2:])


def avg_pool3d(
    x: Tensor,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean over each plane's windows, then over those one behind the other: counts are products over the axes."""
    (size, *sizes), (step, *strides) = triple(kernel), triple(steps(stride, kernel))
    pad, *pads = triple(padding)
    divisor = None if divisor_override is None else 1
    flat = x
    if [*sizes, *strides, *pads] != [1, 1, 1, 1, 0, 0]:
        flat = F.avg_pool2d(_planes(x), sizes, strides, pads, ceil_mode, count_include_pad, divisor)
    columns = _columns(flat, x.shape)
    made = F.avg_pool2d(columns, (size, 1), (step, 1), (pad, 0), ceil_mode, count_include_pad, divisor)
    made = made.reshape(*x.shape[:-3], made.shape[-2], *flat.shape[-2:])
    return made if divisor_override is None else made * (1 / divisor_override)


def _adaptive(pool: OpOverload) -> Callable[..., Tensor]:
    def meaning(x: Tensor, output_size: Sequence[int | None]) -> Tensor:
        size = [have if want is None else want for want, have in zip(output_size, x.shape[-3:], strict=True)]
        flat = _first(pool(_planes(x), size[1:]))
        columns = _columns(flat, x.shape)
        made = _first(pool(columns, [size[0], columns.shape[-1]]))
        return made.reshape(*x.shape[:-3], *size)

    return meaning


def _with_indices(meaning: Callable[..., Tensor]) -> Rule:
    """Operators that also return where each value was, which nothing may read."""
    return composite(lambda *args: (meaning(*args),))


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def _planes(x: Tensor) -> Tensor:
    """``(N, C, D, H, W)`` as images ``(N, C D, H, W)``; the batch may be missing."""
    return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])


def _columns(flat: Tensor, shape: Sequence[int]) -> Tensor:
    """Planes that were pooled, with depth down and their places across."""
    return flat.reshape(*shape[:-2], flat.shape[-2] * flat.shape[-1])


VOLUMES: dict[OpOverload, Rule] = {
    aten.conv3d.default: composite(conv3d),
    aten.conv3d.padding: composite(_conv3d_padded_by_name),
    aten.conv_transpose3d.input: composite(conv_transpose3d),
    aten.max_pool3d.default: composite(max_pool3d),
    aten.max_pool3d_with_indices.default: _with_indices(max_pool3d),
    aten.avg_pool3d.default: composite(avg_pool3d),
    aten.adaptive_avg_pool3d.default: composite(_adaptive(aten.adaptive_avg_pool2d.default)),
    aten._adaptive_avg_pool3d.default: composite(_adaptive(aten.adaptive_avg_pool2d.default)),
    aten.adaptive_max_pool3d.default: _with_indices(_adaptive(aten.adaptive_max_pool2d.default)),
}

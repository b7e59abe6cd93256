"""Operators of torchvision against torchvision itself, in the graph and built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from traced import Function, traced

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.pipeline.observers import relative_difference

ops = pytest.importorskip("torchvision.ops")

seeds = st.integers(0, 1 << 20)


def images(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def regions(count: int, batch: int, size: float, seed: int) -> Tensor:
    """Regions inside and across the border, some without extent: image, x1, y1, x2, y2."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, generator=generator) * size * 1.5 - size / 4
    low, high = ends.min(1).values, ends.max(1).values
    number = torch.randint(batch, (count, 1), generator=generator).float()
    high[0] = low[0]
    return torch.cat([number, low, high], 1)


@settings(max_examples=4)
@given(seeds, st.tuples(*[st.integers(1, 3)] * 2), st.integers(1, 2), st.booleans(), st.sampled_from([1.0, 0.25]))
def test_roi_align(seed: int, cells: tuple[int, int], samples: int, aligned: bool, scale: float) -> None:
    x, rois = images(2, 3, 7, 9, seed=seed), regions(5, 2, 9 / scale, seed)
    align = ops.RoIAlign(cells, scale, samples, aligned)
    traced(align, x, rois, bound=1e-5)


@settings(max_examples=6)
@given(seeds, st.tuples(*[st.integers(1, 4)] * 2), st.sampled_from([1.0, 0.5, 0.25]), st.sampled_from([9, 40]))
def test_roi_pool(seed: int, cells: tuple[int, int], scale: float, extent: int) -> None:
    """Corners at halves of pixels, and regions outside of the image, are among them."""
    x = images(2, 3, 7, 19, seed=seed)
    rois = regions(8, 2, extent / scale, seed)
    rois[::2, 1:] = (rois[::2, 1:] * 2).round() / 2
    traced(ops.RoIPool(cells, scale), x, rois, bound=0)


@settings(max_examples=3)
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_ps_roi_align(seed: int, rows: int, columns: int, samples: int) -> None:
    x, rois = images(2, 2 * rows * columns, 6, 8, seed=seed), regions(4, 2, 8, seed)
    traced(Function(lambda x, rois: ops.ps_roi_align(x, rois, (rows, columns), 1.0, samples)), x, rois, bound=1e-5)


class Deformable(nn.Module):
    """A deformable convolution whose offsets and mask are inputs."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        groups, self.offsets = draw(st.integers(1, 2)), draw(st.integers(1, 2))
        self.kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        pairs = {name: (draw(st.integers(1, 2)), draw(st.integers(1, 2))) for name in ("stride", "dilation")}
        padding = (draw(st.integers(0, 1)), draw(st.integers(0, 2)))
        self.layer = ops.DeformConv2d(4, 4, self.kernel, **pairs, padding=padding, groups=groups, bias=groups == 1)

    def forward(self, x: Tensor, offset: Tensor, *mask: Tensor) -> Tensor:
        result: Tensor = self.layer(x, offset, *mask)
        return result

    def size(self, x: Tensor) -> torch.Size:
        plain = nn.Conv2d(4, 1, self.kernel, self.layer.stride, self.layer.padding, self.layer.dilation)
        return plain(x).shape[2:]


@settings(max_examples=4)
@given(st.data(), seeds, st.booleans())
def test_deformable_convolution(data: Any, seed: int, masked: bool) -> None:
    module, x = Deformable(data.draw), images(2, 4, 7, 8, seed=seed)
    taps, size = module.offsets * module.kernel[0] * module.kernel[1], module.size(x)
    offset, mask = images(2, 2 * taps, *size, seed=seed + 1) * 2, images(2, taps, *size, seed=seed + 2).sigmoid()
    traced(module, x, offset, *([mask] if masked else []), bound=1e-5)


def test_built_code_samples_regions() -> None:
    x, rois = images(2, 3, 7, 9, seed=0), regions(5, 2, 9, 0)
    offset = images(2, 18, 7, 9, seed=3)
    layer = ops.DeformConv2d(3, 4, 3, padding=1).eval()

    def sampled(x: Tensor, rois: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
        return ops.roi_align(x, rois, (2, 3), 1.0, 2, True), layer(x, offset), ops.roi_pool(x, rois, (3, 2), 0.5)

    model = traced(Function(sampled), x, rois, offset, bound=1e-5)
    found = lvc.load(lvc.compile(model, "O1", "native", verify=False))(*(v.numpy() for v in (x, rois, offset)))
    with torch.no_grad():
        wanted = sampled(x, rois, offset)
    for ours, theirs in zip(found, wanted, strict=True):
        assert relative_difference(np.asarray(ours), theirs.numpy()) < 1e-5


def test_samples_may_follow_the_size_of_a_region() -> None:
    def aligned(x: Tensor, rois: Tensor) -> Tensor:
        found: Tensor = ops.roi_align(x, rois, (2, 2))
        return found

    traced(Function(aligned), images(1, 3, 7, 9, seed=0), regions(3, 1, 9, 0), bound=1e-5)


def test_samples_for_cells_with_channels_of_their_own_are_refused() -> None:
    with pytest.raises(CompileError, match="cannot express") as caught:
        traced(Function(lambda x, r: ops.ps_roi_align(x, r, 1)), images(1, 3, 7, 9, seed=0), regions(3, 1, 9, 0))
    assert "give it a sampling_ratio" in caught.value.where


def test_a_head_of_fixed_size_marks_the_boxes_that_torchvision_keeps() -> None:
    corners = torch.rand(80, 2, 2, generator=torch.Generator().manual_seed(4)) * 4
    boxes, scores = torch.cat([corners.min(1).values, corners.max(1).values], 1), torch.rand(80)

    def head(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        best, order = scores.topk(30)
        kept: Tensor = torch.ops.lvc.nms(boxes[order], best > 0.5, 0.4)
        return order, kept

    model = traced(Function(head), boxes, scores)
    order, kept = lvc.load(lvc.compile(model, "O1", "native", verify=False))(boxes.numpy(), scores.numpy())
    wanted = ops.nms(boxes, scores, 0.4)
    assert set(order[kept]) == {number for number in wanted.tolist() if number in order and scores[number] > 0.5}

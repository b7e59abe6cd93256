"""Exported programs whose results are as long as the data say, against what they computed when they were exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from traced import Function

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.counts import cut
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import load

ops = pytest.importorskip("torchvision.ops")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's

COUNT = 24


def suppressed(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    above = scores > 0.4
    boxes, scores = boxes[above], scores[above]
    kept = ops.nms(boxes, scores, 0.3)[:10]
    return boxes[kept], scores[kept]


def of_classes(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    kept = ops.batched_nms(boxes, scores, (scores * 40).to(torch.int64) % 3, 0.3)
    return boxes[kept].reshape(-1, 2, 2), scores[kept]


def placed(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    rows = (scores > 0.6).nonzero().flatten()
    row, corner = torch.where(boxes > 5)
    return boxes.index_select(0, rows), boxes[row, corner], torch.masked_select(boxes, scores[:, None] > 0.7)


def summed(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    chosen = boxes[scores > 0.5]
    return chosen.view(-1, 2, 2).sum(0), chosen.amax(1), (scores > 0.5).sum()


def given_boxes(seed: int, share: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(COUNT, 2, 2, generator=generator) * 8
    scores = torch.rand(COUNT, generator=generator) * share
    return torch.cat([corners.min(1).values, corners.max(1).values + 0.5], 1), scores


def exported(function: Callable[..., object], folder: Path) -> Path:
    program = torch.export.export(Function(function), given_boxes(1, 1.0), strict=False)
    torch.export.save(program, folder / "program.pt2")
    return folder / "program.pt2"


@pytest.mark.parametrize("function", [suppressed, of_classes, placed, summed])
def test_lists_of_an_exported_program(function: Callable[..., tuple[Tensor, ...]], tmp_path: Path) -> None:
    model = load(str(exported(function, tmp_path)))
    verify(model)
    assert model.counts

    @settings(max_examples=20)
    @given(st.integers(0, 1 << 20), st.sampled_from([1.0, 0.75, 0.5]))
    def check(seed: int, share: float) -> None:
        boxes, scores = given_boxes(seed, share)
        wanted = [part.numpy() for part in function(boxes, scores)]
        found = cut(model.outputs, model.counts, model(boxes.numpy(), scores.numpy()))
        assert [(part.shape, part.dtype) for part in found] == [(part.shape, part.dtype) for part in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    check()


def test_it_is_compared_with_the_program_and_built(tmp_path: Path) -> None:
    artefact = lvc.compile(str(exported(suppressed, tmp_path)), check=True)
    boxes, scores = given_boxes(3, 1.0)
    for ours, theirs in zip(lvc.load(artefact)(boxes.numpy(), scores.numpy()), suppressed(boxes, scores), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)


def mean_by_hand(boxes: Tensor, scores: Tensor) -> Tensor:
    chosen = boxes[scores > 0.5]
    return chosen.sum(0) / chosen.shape[0]


def numbered(boxes: Tensor, scores: Tensor) -> Tensor:
    chosen = boxes[scores > 0.5]
    return chosen + torch.arange(chosen.shape[0]).unsqueeze(1)


@pytest.mark.parametrize("function", [mean_by_hand, numbered])
def test_programs_that_compute_with_the_length_are_refused(function: Callable[..., Tensor], tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="computes with a length that depends on the data") as caught:
        load(str(exported(function, tmp_path)))
    assert "largest length" in caught.value.why


def test_models_are_not_changed_by_it(tmp_path: Path) -> None:
    """A model without such lists has no counts."""

    def plain(boxes: Tensor, scores: Tensor) -> Tensor:
        return boxes[torch.tensor([3, 1])] * scores[:4]

    model: Model = load(str(exported(plain, tmp_path)))
    assert not model.counts

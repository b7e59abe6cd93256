"""Results whose length depends on the data, against eager PyTorch and torchvision: nothing, ties and everything."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from traced import Function

import lvc
from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.counts import Count, cut, from_plain, padded, to_plain
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import from_files, to_files
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module
from lvc.compiler.verification.closeness import Comparison

ops = pytest.importorskip("torchvision.ops")

seeds = st.integers(0, 1 << 20)
shares = st.sampled_from([0.0, 0.1, 0.5, 1.0])
"""How many of the scores are above a half, in the mean."""


def detections(count: int, seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and classes, among which there are equal ones."""
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(count, 2, 2, generator=generator) * 8).round() / 2
    boxes = torch.cat([corners.min(1).values, corners.max(1).values + 1], 1)
    scores = (torch.rand(count, generator=generator) * 8).floor() / 16 + 0.01
    above = torch.rand(count, generator=generator) < share
    return boxes, torch.where(above, scores + 0.5, scores), torch.randint(0, 3, (count,), generator=generator).float()


@cache
def of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Model:
    """The model of a function of numbers, loaded once for all that is drawn for it."""
    return loaded(function, *(torch.rand(shape) for shape in shapes))


def loaded(function: Callable[..., Any], *inputs: Tensor) -> Model:
    model = from_module(Function(function), *inputs)
    verify(model)
    return model


def check(function: Callable[..., Any], model: Model, *inputs: Tensor) -> None:
    """The outputs of a model, cut, are those of a function; what lies behind them is zero."""
    wanted = [part.numpy() for part in torch.utils._pytree.tree_leaves(function(*inputs))]
    whole = model(*inputs)
    found = cut(model.outputs, model.counts, whole)
    assert [part.shape for part in found] == [part.shape for part in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(padded(model.outputs, model.counts, found), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def selected(boxes: Tensor, scores: Tensor, classes: Tensor) -> dict[str, Tensor]:
    above, classes = scores > 0.5, classes.long()
    boxes, scores, classes = boxes[above], scores[above], classes[above]
    best = ops.batched_nms(boxes, scores, classes, 0.3)
    one = ops.nms(boxes, scores, 0.4)
    return {
        "boxes": boxes[best],
        "scores": scores[best],
        "classes": classes[best],
        "sides": boxes[one][:, 2:] - boxes[one][:, :2],
        "few": boxes[best][:5],
        "flat": (boxes[best] * 2).reshape(-1),
        "one": one,
    }


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([2, 30]), shares)
def test_boxes_above_a_score_that_stay(seed: int, count: int, share: float) -> None:
    check(selected, of(selected, (count, 4), (count,), (count,)), *detections(count, seed, share))


def masks(x: Tensor, rows: Tensor) -> list[Tensor]:
    few = rows > 0.5
    return [
        x[x > 0.5],
        x[few],
        x[few, :2],
        x[:, x[0] > 0.5],
        x[few.nonzero(as_tuple=True)],
        few.nonzero(),
        torch.nonzero(x > 0.5),
        torch.where(x > 0.5)[1],
        torch.masked_select(x, few[:, None]),
        torch.argwhere(few),
        torch.ops.lvc.counted(x, few.sum(), 1),
    ]


@settings(max_examples=30, deadline=None)
@given(seeds, shares)
def test_masks_and_places(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    above = torch.rand(4, 5, generator=generator) < share
    x = torch.where(above, 0.7, 0.2) + torch.rand(4, 5, generator=generator) / 10
    rows = torch.where(torch.rand(4, generator=generator) < share, 0.9, 0.1)
    check(masks, of(masks, (4, 5), (4,)), x, rows)


def followed(x: Tensor, scores: Tensor) -> list[Tensor]:
    few = x[scores > 0.5]
    plus = torch.cat([few, x[scores > 0.6], x[:2]])
    ranked, order = scores[scores > 0.5].sort()
    return [
        plus,
        torch.cat([x[:1], few]),
        torch.cat([few, few * 2], 1).relu(),
        few.sum(0),
        few.mean(0),
        few.mean((0, 1)),
        few.prod(0),
        few.cumsum(0),
        few.softmax(0),
        few @ x[0, :, None].expand(-1, 3),
        torch.linalg.vector_norm(few, dim=0),
        ranked,
        order,
        few.argsort(0, descending=True),
        few.reshape(-1, 2, 2).permute(1, 0, 2).flip(2),
        few[..., None].expand(-1, -1, 3).reshape(-1, 12),
        few.repeat(1, 2),
        few[few[:, 0] > 0.3],
        torch.nn.functional.conv2d(few.reshape(-1, 1, 2, 2), torch.ones(3, 1, 2, 2)).flatten(1),
        torch.nn.functional.max_pool2d(few.reshape(-1, 1, 2, 2), 2),
        torch.nn.functional.layer_norm(few, (4,)),
        torch.nn.functional.pad(few, (1, 2)),
        torch.zeros(6).scatter_add(0, (scores > 0.5).nonzero()[:, 0], ranked),
        x.index_add(0, (scores > 0.5).nonzero()[:, 0], few),
    ]


@settings(max_examples=30, deadline=None)
@given(seeds, shares)
def test_operators_behind_work_on_what_is_valid(seed: int, share: float) -> None:
    _, scores, _ = detections(6, seed, share)
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)), scores
    check(followed, of(followed, (6, 4), (6,)), *inputs)


def test_extremes_do_not_see_what_is_not_valid() -> None:
    def extremes(x: Tensor, scores: Tensor) -> list[Tensor]:
        few = x[scores > 0.5]
        top, order = few[:, 0].topk(2)
        return [few.amax(0), few.amin(0), few.argmax(0), few.argmin(0), top, order, few.amax(1)]

    x = -torch.rand(6, 4) - 1
    model = loaded(extremes, x, torch.rand(6))
    for scores in (torch.tensor([0.1, 0.9, 0.2, 0.8, 0.1, 0.1]), torch.ones(6)):
        for sign in (1, -1):
            check(extremes, model, x * sign, scores)


def test_regions_are_pooled_and_convolved() -> None:
    def heads(x: Tensor, boxes: Tensor, scores: Tensor) -> list[Tensor]:
        boxes = boxes[ops.nms(boxes, scores, 0.3)]
        pooled = ops.roi_align(x, [boxes], (2, 2), sampling_ratio=2)
        return [boxes, torch.nn.functional.conv2d(pooled, torch.ones(3, 2, 1, 1)).relu().flatten(1)]

    x = torch.randn(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    boxes, scores, _ = detections(20, 3, 0.5)
    model = loaded(heads, x, boxes, scores)
    check(heads, model, x, boxes, scores)
    check(heads, model, x, boxes[:1].expand(20, 4) + torch.rand(20, 1) / 100, scores)


def test_built_code_returns_arrays_cut_to_their_counts() -> None:
    model = of(selected, (30, 4), (30,), (30,))
    artefact = lvc.compile(model, "O2", "native", check=True)
    run = lvc.load(artefact)
    assert [value.name for value in run.outputs] == ["boxes", "scores", "classes", "sides", "few", "flat", "one"]
    assert str(run.outputs[0].spec) == "f32[30,4]"
    assert artefact.counts["boxes"] == artefact.counts["scores"] == Count("boxes_count", 0)
    for seed, share in ((1, 1.0), (2, 0.4), (3, 0.0)):
        inputs = detections(30, seed, share)
        found = run(*(part.numpy() for part in inputs))
        for ours, theirs in zip(found, selected(*inputs).values(), strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())


def test_the_command_line_shows_what_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = loaded(lambda x: x[x > 0.5] * 2, torch.rand(7))
    container.write(lvc.compile(model, "O1", "reference", verify=False), tmp_path / "few.lvc")
    for name, x in (("a", [0.1, 0.9, 0.7, 0, 0, 0, 0.6]), ("b", [0.0] * 7)):
        np.save(tmp_path / f"{name}.npy", np.array(x, np.float32))
    files = [str(tmp_path / name) for name in ("few.lvc", "a.npy", "b.npy")]
    assert main(["run", *files]) == 0
    shown = capsys.readouterr().out
    assert "f32[3]" in shown
    assert "f32[0]" in shown
    assert main(["run", *files[:2], "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["output"], [1.8, 1.4, 1.2], rtol=1e-6)
    assert main(["run", *files, "-o", str(tmp_path / "out.npz")]) == 2
    assert "another length for each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, m: x[m > 0] + x[m > 1], "lengths are computed apart"),
        (lambda x, m: x[m > 0][1:], "does not begin with the first element"),
        (lambda x, m: x[m > 0].flip(0), "moves elements along that dimension"),
        (lambda x, m: x[m > 0].T @ x[m > 0], "sums over that dimension"),
        (lambda x, m: x[m > 0].repeat(2, 1), "repeats it"),
        (lambda x, m: x[m > 0].T.reshape(-1), "torn apart"),
        (lambda x, m: torch.nn.functional.avg_pool2d(x[m > 0][None, None], 2), "works across that dimension"),
    ],
)
def test_what_would_see_the_rest_is_refused(function: Callable[..., Tensor], reason: str) -> None:
    with pytest.raises(CompileError) as caught:
        loaded(function, torch.rand(6, 4), torch.rand(6))
    assert "length depends on the data" in caught.value.what
    assert reason in caught.value.why


def test_an_output_of_two_open_lengths_is_refused() -> None:
    with pytest.raises(CompileError, match="two lengths"):
        loaded(lambda x, m: x[m > 0][:, x[0] > 0], torch.rand(6, 4), torch.rand(6))


def test_lists_that_differ_in_few_elements_or_in_order_agree() -> None:
    model = loaded(lambda x: {"few": x[x[:, 0] > 0.5], "all": x.sum()}, torch.rand(200, 2))
    x = np.random.default_rng(0).random((200, 2), np.float32) / 2.1 + 0.52
    own = model(x)

    def agrees(few: np.ndarray, *, total: float = 0.0) -> bool:
        other = padded(model.outputs, model.counts, [few, own[1] + np.float32(total)])
        return Comparison(model, [x], own, other).explanation is not None

    assert agrees(x)
    assert agrees(x[::-1])
    assert agrees(x[1:])
    assert not agrees(x[8:])
    assert not agrees(x[:0])
    assert not agrees(np.concatenate([x[1:], x[1:2]])[::-1][:193])
    assert not agrees(x[::-1] + np.float32(0.01))
    assert not agrees(x[::-1], total=1.0)


def test_one_of_a_short_list_may_stand_at_a_threshold_where_the_model_quantises() -> None:
    x = np.random.default_rng(0).random((20, 2), np.float32) / 2.1 + 0.52

    def agrees(few: Callable[[Tensor], Tensor], found: np.ndarray) -> bool:
        model = loaded(lambda x: {"few": few(x)[x[:, 0] > 0.5]}, torch.rand(20, 2))
        return Comparison(model, [x], model(x), padded(model.outputs, model.counts, [found])).explanation is not None

    def rounded(x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).float()

    short = rounded(torch.from_numpy(x)).numpy()
    assert agrees(rounded, short)
    assert agrees(rounded, short[1:])
    assert not agrees(rounded, short[2:])
    assert not agrees(rounded, np.concatenate([short[2:], short[2:4] + 1]))
    assert not agrees(lambda x: x, x[1:])


def test_counts_are_stored_with_a_model() -> None:
    inputs = detections(30, 0, 0.5)
    model = of(selected, (30, 4), (30,), (30,))
    again = from_files(to_files(model))
    assert again.counts == model.counts
    check(selected, again, *inputs)
    assert model.copy().counts == model.counts


@pytest.mark.parametrize(
    "told", [[], {"boxes": ["boxes_count"]}, {"boxes": ["flat", 0]}, {"boxes": ["boxes_count", 2]}, {"no": ["one", 0]}]
)
def test_counts_that_fit_no_output_are_refused(told: object) -> None:
    outputs = of(selected, (30, 4), (30,), (30,)).outputs
    if not told:
        assert from_plain(told, outputs) == {}
        return
    with pytest.raises(UsageError, match="count"):
        from_plain(told, outputs)


def test_counts_as_plain_data() -> None:
    model = of(selected, (30, 4), (30,), (30,))
    assert from_plain(to_plain(model.counts), model.outputs) == model.counts
    assert model.usage["counts"]["few"] == ["few_count", 0]


def merged(boxes: Tensor, scores: Tensor) -> Tensor:
    """A list that is put together of its parts, as what is pooled from the levels of a pyramid."""
    chosen = boxes[scores > 0.5]
    result = torch.zeros(chosen.shape[0], 4)
    for part in range(2):
        rows = torch.where((chosen[:, 0] > 3) == bool(part))[0]
        result[rows] = chosen[rows] * 2 + part
    return result[result.sum(1) < 90]


@settings(max_examples=8)
@given(seeds, shares)
def test_a_list_that_is_put_together_of_its_parts_has_its_length(seed: int, share: float) -> None:
    boxes, scores, _ = detections(12, seed, share)
    check(merged, of(merged, (12, 4), (12,)), boxes, scores)

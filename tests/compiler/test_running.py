"""Runs over data: values in parts that do not depend on how many images run at once, and nothing kept."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch.fx import Node

from lvc.compiler.data.batches import batches
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.batching.batching import BatchError, Calls
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running import batches as running
from lvc.compiler.running import images as reading
from lvc.compiler.running.batches import MOST, images_at_once
from lvc.compiler.running.compute import compute
from lvc.compiler.running.images import Calibration, stream
from lvc.compiler.running.memory import activation_bytes
from lvc.compiler.running.rerun import Rerun
from lvc.compiler.running.run import Run
from lvc.compiler.running.sweep import Sweep

aten = torch.ops.aten

NETWORK = parse_model("""
    model network(x: f32[1,2,4,4])
      @a.weight : f32[4,2,3,3]
      @d.weight : f32[3,8]
      %a = conv2d(%x, @a.weight, None, [1, 1], [1, 1])
      %turned = permute(%a, [2, 3, 0, 1])
      %flat = reshape(%turned, [16, 4])
      %twice = cat([%flat, %flat], 1)
      %d = linear(%twice, @d.weight)
      %back = reshape(%d, [16, 1, 3])
      %front = permute(%back, [1, 0, 2])
      %mean = mean(%front, [1])
      return out=%mean, places=%d
""")
"""Positions come first on the way, so that an image's values do not lie together."""

MIXER = parse_model("""
    model mixer(x: f32[1,2,4,4])
      @a.weight : f32[4,2,3,3]
      %a = conv2d(%x, @a.weight, None, [1, 1], [1, 1])
      %mean = mean(%a, [0], True)
      %out = sub(%a, %mean)
      return out=%out
""")

IMAGES = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def alone() -> list[tuple[torch.Tensor, ...]]:
    with torch.inference_mode():
        return [NETWORK.module(image) for image in torch.split(IMAGES, 1)]


def same(found: Sequence[Sequence[torch.Tensor]], wanted: Sequence[Sequence[torch.Tensor]]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_parts_are_what_each_image_gives_alone(size: int) -> None:
    run = Run(NETWORK)
    same([part for batch in torch.split(IMAGES, size) for part in run.each(batch)], alone())
    assert run(IMAGES)[1].shape == (80, 3)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_whoever_looks_sees_one_image_after_the_other(size: int) -> None:
    seen: dict[str, list[torch.Tensor]] = {}

    def look(node: Node, parts: Sequence[torch.Tensor]) -> None:
        seen.setdefault(node.name, []).extend(parts)

    run = Run(NETWORK, {node: partial(look, node) for node in calls(NETWORK.module.graph)})
    for batch in torch.split(IMAGES, size):
        run(batch)
    same([[part] for part in seen["d"]], [outputs[1:] for outputs in alone()])
    assert [len(parts) for parts in seen.values()] == [5] * len(seen)


def test_a_node_can_be_computed_otherwise() -> None:
    node = next(calls(NETWORK.module.graph, aten.linear.default))

    def doubled(layer: Node, values: Mapping[Node, torch.Tensor], made: Calls | None) -> torch.Tensor:
        return 2 * compute(layer, values, made)

    same(Run(NETWORK, instead={node: doubled}).each(IMAGES), [[2 * out for out in outputs] for outputs in alone()])


def test_values_are_freed_on_the_way() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def look(parts: Sequence[torch.Tensor]) -> None:
        seen.append(weakref.ref(parts[0]))

    run = Run(NETWORK, dict.fromkeys(calls(NETWORK.module.graph, aten.conv2d.default), look))
    run(IMAGES[:1])
    assert seen[0]() is None


@pytest.mark.parametrize("sizes", [[1] * 5, [2, 3], [5]])
def test_a_sweep_stops_where_it_is_told_to(sizes: list[int]) -> None:
    model = NETWORK.copy()
    node = next(calls(model.module.graph, aten.linear.default))
    sweep = Sweep(model, torch.split(IMAGES, sizes))
    found = sweep.past(node)
    same([[part] for part in found], [outputs[1:] for outputs in alone()])
    sweep.change(node, lambda value: value.add_(1))
    last = next(calls(model.module.graph, aten.mean.dim))
    same([[part] for part in sweep.past(last)], [[outputs[0] + 1] for outputs in alone()])


@pytest.mark.parametrize("size", [1, 5])
def test_a_part_of_a_run_is_repeated(size: int) -> None:
    rerun = Rerun(NETWORK)
    weight = next(node for node in NETWORK.module.graph.nodes if node.target == "d.weight")
    for place, batch in enumerate(torch.split(IMAGES, size)):
        values = rerun.run(batch)
        wanted = alone()[place * size : (place + 1) * size]
        same(rerun.outputs(values), wanted)
        same(rerun.again(values, weight, 3 * values[weight]), [[3 * out for out in outputs] for outputs in wanted])


def test_gradients_are_those_of_each_image() -> None:
    run = Run(NETWORK, differentiable=True)
    batch = IMAGES.clone().requires_grad_()
    sum(outputs[0].square().sum() for outputs in run.each(batch)).backward()  # type: ignore[union-attr]
    for place, image in enumerate(torch.split(IMAGES, 1)):
        one = image.clone().requires_grad_()
        run(one)[0].square().sum().backward()  # type: ignore[no-untyped-call]
        assert batch.grad is not None
        assert one.grad is not None
        torch.testing.assert_close(batch.grad[place : place + 1], one.grad)


def test_as_many_run_at_once_as_caches_like(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = parse_model("model m(x: f32[2,4])\n%y = relu(%x)\nreturn out=%y")
    assert images_at_once(kept) == MOST == 64
    assert images_at_once(MIXER) == 1
    monkeypatch.setattr(running, "_MOST_BYTES", 5 * 64)
    assert images_at_once(kept) == 10  # two values of 32 bytes for two images
    monkeypatch.setattr(running, "_MOST_BYTES", 32)
    assert images_at_once(kept) == 2


def workspace(count: int) -> Workspace:
    images = [(np.full((1, 2, 4, 4), place, np.float32), place % 3) for place in range(count)]
    return Workspace(data={"calib": lambda: images, "judge": lambda: images}, threads=1)


@pytest.mark.parametrize(("model", "sizes"), [(NETWORK, [16, 16, 5]), (MIXER, [1] * 37)])
def test_data_come_in_batches_of_what_runs_at_once(
    model: Model, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST", 16)
    streamed = list(stream(model, workspace(37), "calib", 100, ""))
    assert [len(batch) for batch in streamed] == sizes
    data = Calibration.read(model, workspace(37), "calib")
    assert [len(batch) for batch in data.batches] == sizes
    assert data.labels is not None
    assert [len(labels) for labels in data.labels] == sizes
    assert (len(data), data.images, data.different, len(data.inputs)) == (37, 37, 37, 37)
    assert [int(batch[0, 0, 0, 0]) % 3 for batch in data.inputs] == torch.cat(list(data.labels)).tolist()
    first = data.first(18)
    assert (len(first), first.different) == (18, 18)
    assert torch.equal(torch.cat(list(first.batches)), torch.cat(list(data.batches))[:18])
    assert len(data.fitting((2 << 30) // 20)) == 20
    half, rest = data.halves()
    assert (len(half), len(rest), half.different, rest.different) == (19, 18, 19, 18)
    assert torch.equal(torch.cat([*half.batches, *rest.batches]), torch.cat(list(data.batches)))
    assert [len(part) for part in data.first(1).halves()] == [1, 1]
    monkeypatch.setattr(running, "_MOST_BYTES_HELD", 7 * activation_bytes(model))
    held = data.held(model)
    assert held.labels is not None
    assert max(map(len, held.batches)) <= 7
    assert [len(labels) for labels in held.labels] == [len(batch) for batch in held.batches]
    assert torch.equal(torch.cat(list(held.batches)), torch.cat(list(data.batches)))


def test_a_model_that_mixes_images_runs_as_it_is() -> None:
    run = Run(MIXER)
    assert not run(IMAGES[:1])[0].any()
    with pytest.raises(BatchError, match="mean"):
        run(IMAGES[:2])


LOOKUP = parse_model("""
    model lookup(x: f32[1,16])
      @table : f32[1,16]
      %place = to(%x, i64)
      %out = gather(@table, 1, %place)
      return out=%out
""")


def test_a_model_that_does_not_run_on_random_inputs_runs_as_it_is() -> None:
    """Places in a table are no random numbers."""
    assert images_at_once(LOOKUP) == 1
    with pytest.raises(BatchError, match="'out' cannot be computed on random inputs") as caught:
        LOOKUP.with_batch(2)
    assert "out of bounds" in caught.value.why


def test_no_more_images_are_read_than_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Calibration.read(NETWORK, workspace(37), "calib").first(10)
    monkeypatch.setattr(reading, "_MOST_BYTES", 10 * NETWORK.inputs[0].spec.bytes)
    found = Calibration.read(NETWORK, workspace(37), "calib")
    assert (found.images, found.different) == (10, 10)
    assert torch.equal(torch.cat(list(found.batches)), torch.cat(list(wanted.batches)))


READERS: list[Callable[[Model, Workspace], object]] = [
    lambda model, place: Calibration.read(model, place, "calib"),
    lambda model, place: list(stream(model, place, "calib", 100, "")),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (
            np.zeros((1, 2, 5, 4), np.float32),
            "the images of 'calib' are f32[1,2,5,4], and the model takes f32[1,2,4,4]",
        ),
        (np.zeros((1, 2, 4, 4), np.uint8), "the images of 'calib' are u8[1,2,4,4], and the model takes f32[1,2,4,4]"),
        (np.full((1, 2, 4, 4), np.nan, np.float32), "an image of the data set 'calib' has NaN or infinity in it"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(
    read: Callable[[Model, Workspace], object], sample: np.ndarray, told: str
) -> None:
    samples = [(np.zeros((1, 2, 4, 4), np.float32), 0), (sample, 0)]
    with pytest.raises(UsageError, match=re.escape(told)):
        read(NETWORK, Workspace(data={"calib": lambda: samples, "judge": lambda: samples}, threads=1))


def test_a_last_batch_is_filled_as_far_as_asked() -> None:
    samples = [(np.full((1, 2), place, np.float32), place) for place in range(7)]
    found = list(batches(samples, 4, 2))
    assert [array[:, 0].tolist() for array, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 6]]
    assert [labels for _, labels in found] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [len(array) for array, _ in batches(samples[:5], 4, 1)] == [4, 1]

"""Products of attention are found in every form, and another basis of each head computes the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from attention_models import CHANNELS, FORMS, HEADS, WIDTH, Attention, Beside, Network, traced, turned
from torch import nn

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.observers import relative_difference
from lvc.passes.analysis.arrangement import Axis, dimensions
from lvc.passes.analysis.attention import Kind, Product, products
from lvc.passes.low_rank.heads import Bases, Heads, bases_of
from lvc.passes.low_rank.layer import layer_of
from lvc.passes.low_rank.narrowing import Narrow, Place, check_narrowing, narrow, place_of
from lvc.passes.low_rank.statistics import Statistics


def found(model: Model) -> list[tuple[Product, Bases]]:
    heads = []
    for one in products(model.module.graph):
        assert isinstance(one, Product), one
        first, second = (layer_of(model.module, node) for node in one.layers)
        bases = bases_of(model, Heads(one, first, second), {first: Statistics(), second: Statistics()})
        heads.append((one, bases))
    return heads


def full(heads: list[tuple[Product, Bases]]) -> dict[Place, Narrow]:
    return {place_of(one): Narrow(bases.first, bases.second) for one, bases in heads}


def apart(model: Model, wanted: Mapping[Place, Narrow]) -> float:
    made = model.copy()
    narrow(made, wanted)
    verify(made)
    inputs = seeded_inputs(model.inputs, 0)
    return max(relative_difference(*pair) for pair in zip(made(*inputs), model(*inputs), strict=True))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_another_basis_of_each_head_computes_the_same(form: str, images: int) -> None:
    model = traced(FORMS[form](), images)
    heads = found(model)
    assert [(one.kind, one.heads, one.width) for one, _ in heads] == [
        (Kind.SCORES, HEADS, WIDTH),
        (Kind.VALUES, HEADS, WIDTH),
    ]
    assert heads[0][0].shifts
    wanted = full(heads)
    for some in (wanted, *({place: one} for place, one in wanted.items())):
        assert apart(model, some) < 1e-5
        assert check_narrowing(model, some, dict(zip(some, (5, 3), strict=False))) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_narrower_heads_save_what_they_are_narrower_by(form: str) -> None:
    model = traced(FORMS[form]())
    wanted = full(found(model))
    made = model.copy()
    narrow(made, {place: one.leading(2) for place, one in wanted.items()})
    verify(made)
    places = {"crossed": (5, 9), "torch_crossed": (5, 9)}.get(form, (9, 9))
    window = 9 if form == "convolutions" else 1
    layers = HEADS * (WIDTH - 2) * CHANNELS * (places[0] * (1 + window) + 2 * places[1])
    products_ = 2 * HEADS * (WIDTH - 2) * places[0] * places[1]
    assert total_macs(model.module.graph) - total_macs(made.module.graph) == layers + products_


def test_queries_and_keys_of_one_layer_with_values_that_are_read_twice() -> None:
    model = traced(Network(Beside()))
    scores, refused = products(model.module.graph)
    assert not isinstance(refused, Product)
    assert refused[1] == "values: what they give goes through add"
    assert isinstance(scores, Product)
    layer = layer_of(model.module, scores.layers[0])
    bases = bases_of(model, Heads(scores, layer, layer), {layer: Statistics()})
    wanted = full([(scores, bases)])
    assert check_narrowing(model, wanted, dict.fromkeys(wanted, 3)) < 1e-5
    made = model.copy()
    narrow(made, {place: one.leading(3) for place, one in wanted.items()})
    saved = 2 * HEADS * (WIDTH - 3) * CHANNELS * 9 + HEADS * (WIDTH - 3) * 81
    assert total_macs(model.module.graph) - total_macs(made.module.graph) == saved


def test_a_product_of_true_rank_is_factored_without_error() -> None:
    """Queries and keys that meet in three dimensions, values of which the output layer reads three."""
    module = Network(Attention())
    attention = module.attention
    assert isinstance(attention, Attention)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in (attention.key, attention.value):
            mixed = torch.randn(HEADS, WIDTH, 3) @ torch.randn(HEADS, 3, CHANNELS + 1)
            layer.weight.copy_(mixed[..., :-1].flatten(0, 1))
            layer.bias.copy_(mixed[..., -1].flatten())
    model = traced(module)
    heads = found(model)
    assert all(bases.lost(3) < 1e-8 for _, bases in heads)
    assert all(bases.lost(2) > 1e-3 for _, bases in heads)
    assert apart(model, {place: one.leading(3) for place, one in full(heads).items()}) < 1e-4


class Local(nn.Module):
    """Values that are convolved beside; all heads mix them alike."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.output, self.local = nn.Linear(CHANNELS, CHANNELS), nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = self.value(x)
        mixed = (self.query(x) @ x.transpose(1, 2)).softmax(-1)[:, None] @ v.unflatten(2, (HEADS, -1)).transpose(1, 2)
        return self.output(mixed.transpose(1, 2).flatten(2)) + self.local(v.transpose(1, 2)).transpose(1, 2)


class Itself(nn.Module):
    """Queries that are the keys as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.value = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.output = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, v = self.layer(x), self.value(x)
        return self.output((q @ q.transpose(1, 2)).softmax(-1) @ v)


REFUSED = {
    "rotation by position": (lambda: Attention(query=turned, key=turned), "queries and keys: they go through cat"),
    "normalised": (lambda: Attention(key=nn.LayerNorm(WIDTH)), "queries and keys: they go through layer_norm"),
    "shared keys": (
        lambda: Attention(keys=1, key=lambda k: k.expand(-1, HEADS, -1, -1)),
        "queries and keys: they go through expand",
    ),
    "shared by broadcasting": (lambda: Attention(keys=1), "queries and keys: heads share them"),
    "gated": (lambda: Attention(mixed=torch.sigmoid), "values: what they give goes through sigmoid"),
    "activated": (lambda: Attention(value=torch.relu), "values: they go through relu"),
    "read elsewhere": (Local, "values: they are read elsewhere as well"),
    "one for both": (Itself, "queries and keys: they are read by 2 calls"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_basis_may_take_the_place_of_is_refused(name: str) -> None:
    module, reason = REFUSED[name]
    reasons = [one[1] for one in products(traced(Network(module())).module.graph) if not isinstance(one, Product)]
    assert reason in reasons


def test_a_wrong_basis_is_found_out() -> None:
    model = traced(FORMS["packed"]())
    wanted = full(found(model))
    wrong = {place: Narrow(one.first * 1.01, one.second) for place, one in wanted.items()}
    with pytest.raises(CheckError, match="in another basis of each head the model gives other outputs"):
        check_narrowing(model, wrong, dict.fromkeys(wrong, 3))


def test_axes_of_an_index() -> None:
    index = torch.arange(24).view(2, 3, 4)
    assert dimensions(index.permute(2, 0, 1).flatten(1)) == [[Axis(4, 1)], [Axis(6, 4)]]
    assert dimensions(index.transpose(0, 1).flatten(1)) == [[Axis(3, 4)], [Axis(2, 12), Axis(4, 1)]]
    assert dimensions(index[:, 1:2, ::2]) == [[Axis(2, 12)], [], [Axis(2, 2)]]
    assert dimensions(index.flip(2)) is None
    assert dimensions(torch.tensor([0, 1, 5, 7])) is None
    assert dimensions(torch.tensor(np.array([[0, 1], [2, 4]]))) is None
    assert Axis(12, 2).split((4, 8, 100)) == [Axis(3, 8), Axis(2, 4), Axis(2, 2)]

"""Layers fitted to values of another model, the moments of what is read, and the bias that a layer gets."""

from __future__ import annotations

import pytest
import torch
from calibration_data import normal

from lvc.compiler.ir.graph import arguments, calls, spec, tensor
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.layers import MATRIX_LAYERS, channel_dim, set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.running import batches
from lvc.compiler.running.images import Calibration
from lvc.passes.fitting.gathering import channel_moments, row_moments
from lvc.passes.fitting.layers import Target, check_layer, fit_layers

NETWORK = parse_model("""
    model network(x: f32[1,4,6,6])
      @a.weight : f32[8,4,3,3]
      @b.weight : f32[8,4,1,1]
      @b.bias : f32[8]
      @c.weight : f32[5,8]
      %a = conv2d(%x, @a.weight, None, [1, 1], [1, 1])
      %b = conv2d(%a, @b.weight, @b.bias, [1, 1], [0, 0], [1, 1], 2)
      %sum = add(%b, %a)
      %mean = mean(%sum, [2, 3])
      %c = linear(%mean, @c.weight)
      return out=%c
""")


def data(model: Model = NETWORK, images: int = 40) -> Calibration:
    return Calibration.read(model, normal(model, images), "calib")


def layers(model: Model) -> dict[str, torch.fx.Node]:
    return {node.name: node for node in calls(model.module.graph, *MATRIX_LAYERS)}


def values(model: Model, name: str, images: torch.Tensor) -> torch.Tensor:
    """What a node gives, image by image."""
    found = {}

    class Seen(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        rows = []
        for image in torch.split(images, 1):
            Seen(model.module).run(image)
            rows.append(found[name])
    return torch.cat(rows)


@pytest.mark.parametrize("at_once", [1, 16])
def test_given_layers_are_fitted_to_given_values(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that were spoilt give again what values of another model were, each seeing what those before it give."""
    monkeypatch.setattr(batches, "MOST", at_once)
    spoilt = NETWORK.copy()
    with torch.no_grad():
        for name in ("a.weight", "b.weight", "c.weight"):
            spoilt.module.get_parameter(name).mul_(0.3).add_(0.1)
    ours, theirs = layers(spoilt), layers(NETWORK)
    used = fit_layers(NETWORK, spoilt, {ours[name]: Target(theirs[name]) for name in ("a", "b", "c")}, data())
    verify(spoilt)
    assert used.different == 32  # the rest is held out
    images = torch.cat(list(used.batches))
    for name in ("a", "b", "c"):
        wanted, found = values(NETWORK, name, images), values(spoilt, name, images)
        assert float((found - wanted).square().mean()) < 1e-4 * float(wanted.square().mean())
    assert arguments(ours["a"])["bias"] is not None


def test_a_layer_of_another_width_is_fitted_to_the_channels_that_are_left() -> None:
    narrow = parse_model("""
        model narrow(x: f32[1,4,6,6])
          @a.weight : f32[3,4,3,3]
          %a = conv2d(%x, @a.weight, None, [1, 1], [1, 1])
          return out=%a
    """)
    kept = torch.tensor([False, True, False, False, True, True, False, False])
    fit_layers(NETWORK, narrow, {layers(narrow)["a"]: Target(layers(NETWORK)["a"], kept)}, data())
    weight, wanted = (tensor(model.module, arguments(layers(model)["a"])["weight"]) for model in (narrow, NETWORK))
    assert weight is not None
    assert wanted is not None
    torch.testing.assert_close(weight, wanted[kept], rtol=1e-2, atol=1e-2)


def test_what_cannot_be_fitted_says_why() -> None:
    shared = parse_model("""
        model shared(x: f32[1,4])
          @w : f32[4,4]
          %y = linear(%x, @w)
          %z = linear(%y, @w)
          return out=%z
    """)
    assert check_layer(layers(NETWORK)["a"]) is None
    assert check_layer(layers(shared)["y"]) == "its weight is shared by 2 layers"


@pytest.mark.parametrize("at_once", [1, 16])
def test_moments_of_rows_are_those_of_patches(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST", at_once)
    used, found = data(), layers(NETWORK)
    sums = row_moments(NETWORK, [found["a"], found["b"]], used)
    images = torch.cat(list(used.batches))
    patches = torch.nn.functional.unfold(images, 3, padding=1).movedim(1, -1).flatten(0, 1).double()
    torch.testing.assert_close(
        sums[found["a"]].of_group(0).centred()[0], patches.T.cov(correction=0), rtol=1e-4, atol=1e-5
    )
    second = values(NETWORK, "a", images)[:, 4:].movedim(1, -1).flatten(0, 2).double()
    torch.testing.assert_close(
        sums[found["b"]].of_group(1).centred()[0], second.T.cov(correction=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("at_once", [1, 16])
def test_moments_of_channels_count_every_place(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST", at_once)
    used, found = data(), layers(NETWORK)
    images = torch.cat(list(used.batches))
    wanted = [(found[name], channel_dim(found[name])) for name in ("b", "c")] + [(found["b"], 3)]
    all_moments = channel_moments(NETWORK, wanted, used)
    for node, dim in wanted:
        rows = values(NETWORK, node.name, images).movedim(dim, -1).reshape(-1, spec(node).shape[dim]).double()
        torch.testing.assert_close(all_moments[node, dim].mean_x, rows.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(all_moments[node, dim].centred()[0], rows.T.cov(correction=0), rtol=1e-4, atol=1e-5)


def test_a_bias_is_changed_added_or_made_a_layers_own() -> None:
    model = parse_model("""
        model biased(x: f32[1,4])
          @a.weight : f32[4,4]
          @b.weight : f32[4,4]
          @c.weight : f32[4,4]
          @d.weight : f32[4,4]
          @both : f32[4]
          @own : f32[4]
          %a = linear(%x, @a.weight, @both)
          %b = linear(%a, @b.weight, @both)
          %c = linear(%b, @c.weight, @own)
          %d = linear(%c, @d.weight)
          return out=%d
    """)
    shared = model.module.get_parameter("both").clone()
    for place, layer in enumerate(list(calls(model.module.graph))):
        if layer.name != "a":
            set_bias(model.module, layer, torch.full((4,), float(place)).double())
    model.module.recompile()
    verify(model)
    stored = {name: tensor(model.module, arguments(layer)["bias"]) for name, layer in layers(model).items()}
    assert torch.equal(stored["a"], shared)  # type: ignore[arg-type]
    assert [stored[name].detach()[0].item() for name in "bcd"] == [1.0, 2.0, 3.0]  # type: ignore[index]
    assert [str(arguments(layer)["bias"].target) for layer in layers(model).values()] == [
        *("both", "b.bias", "own", "d.bias")
    ]

"""A layer whose result is added to another value is fitted to the sum, and so mends what the other value lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruning_models import residual, workspace
from torch import nn
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, store
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.fitting import layers
from lvc.passes.fitting.junctions import Junction, find_junction, undo

BLOCK = """
    model block(x: f32[2,3,4,4])
      @side : f32[5,3,1,1]
      @main : f32[5,3,1,1]
      @mean : f32[5]
      @var : f32[5]
      @gamma : f32[5]
      @beta : f32[5]
      %first = conv2d(%x, @side)
      %last = conv2d(%x, @main)
      {rest}
      return y=%y
"""


def layers_of(rest: str) -> tuple[Model, Node, Node]:
    """A block and its two convolutions, in order."""
    model = parse_model(BLOCK.format(rest=rest))
    first, last = calls(model.module.graph, aten.conv2d.default)
    return model, first, last


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("%y = add(%first, %last)", True),
        ("%y = add(%last, %first)", True),
        (
            "%n = batch_norm(%last, @gamma, @beta, @mean, @var, False, 0.1, 1e-5, True)\n      %y = add(%n, %first)",
            True,
        ),
        ("%m = permute(%last, [0, 1, 3, 2])\n      %r = roll(%m, [1], [2])\n      %y = add(%first, %r)", True),
        ("%m = slice(%last, 2, 0, 4, 1)\n      %y = add(%m, %first)", False),
        ("%y = add(%first, %last, alpha=2)", False),
        ("%y = add(%last, %last)", False),
        ("%r = relu(%last)\n      %y = add(%r, %first)", False),
        ("%r = relu(%first)\n      %y = add(%last, %r)", False),
        ("%s = add(%last, %first)\n      %y = mul(%s, %last)", False),
    ],
)
def test_which_layers_are_added_to_what_is_there_before_them(rest: str, found: bool) -> None:
    _, first, last = layers_of(rest)
    junction = find_junction(last, [first, last])
    assert (junction is not None) == found
    if junction:
        assert junction.other is first
    assert find_junction(first, [first, last]) is None, "the layer behind it is the last to mend the sum"


def test_what_is_wanted_gives_the_sum_behind_the_normalisation() -> None:
    model, first, last = layers_of(
        "%n = batch_norm(%last, @gamma, @beta, @mean, @var, False, 0.1, 1e-5, True)\n      %y = add(%n, %first)"
    )
    torch.manual_seed(0)
    gamma, var = torch.tensor([1.0, -0.5, 2.0, 0.0, 1e-9]), torch.rand(5) + 0.5
    mean, beta = torch.randn(5), torch.randn(5)
    for name, value in {"gamma": gamma, "var": var, "mean": mean, "beta": beta}.items():
        store(model.module, name, value)
    junction = find_junction(last, [first, last])
    assert isinstance(junction, Junction)
    total, other, own = torch.randn(3, 2, 5, 4, 4)
    wanted = junction.wanted(model.module, total, other, own)
    normalised = nn.functional.batch_norm(wanted, mean, var, gamma, beta, False, 0.1, 1e-5)
    torch.testing.assert_close((normalised + other)[:, :3], total[:, :3], rtol=1e-5, atol=1e-5)
    assert torch.equal(wanted[:, 3:], own[:, 3:]), "nothing of these channels arrives at the sum"


def test_what_calls_have_moved_is_moved_back() -> None:
    rest = ("%m = permute(%last, [0, 2, -1, 1])", "%r = roll(%m, [1, -2], [1, 3])", "%y = reshape(%r, [2, 16, 5])")
    model, *_ = layers_of("\n      ".join(rest))
    moves = [node for node in calls(model.module.graph) if node.name in ("m", "r", "y")]
    value = moved = torch.randn(2, 5, 4, 4)
    for node in moves:
        moved = node.target(moved, *node.args[1:])  # type: ignore[operator]
    assert torch.equal(undo(moves, moved), value)


class Block(nn.Module):
    """A shortcut that is narrow, and so loses by pruning, beside a wide branch that knows what it loses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.narrow, self.side = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.wide, self.main = nn.Conv2d(4, 48, 1), nn.Conv2d(48, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.side(torch.relu(self.narrow(x)))
        return self.main(torch.relu(self.wide(x))) + shortcut


class Turned(Block):
    """The same with places first, and the branch moved behind its last layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.side(torch.relu(self.narrow(x))).permute(2, 3, 0, 1)
        return (self.main(torch.relu(self.wide(x))).permute(2, 3, 0, 1) + shortcut).permute(2, 3, 0, 1)


@pytest.mark.parametrize("block", [Block, Turned])
def test_a_branch_makes_up_for_what_the_shortcut_lost(block: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = from_module(block().eval(), torch.zeros(2, 4, 8, 8))
    inputs = np.random.default_rng(7).uniform(-2, 2, (2, 4, 8, 8)).astype(np.float32)

    def error() -> float:
        pipeline = Pipeline.parse("prune-channels{ratio=0.3 ranking=layer}")
        pruned, _ = pipeline.run(whole, workspace(whole, 64))
        return float(np.square(pruned(inputs)[0] - whole(inputs)[0]).mean())

    with_sums = error()
    monkeypatch.setattr(layers, "find_junction", lambda *_: None)
    assert with_sums < 0.5 * error()


def test_too_few_images_to_tell_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum that a few images seem to explain would be fitted to their noise."""
    whole = residual()
    inputs = np.random.default_rng(7).standard_normal((16, *whole.inputs[0].spec.shape)).astype(np.float32)

    def error() -> float:
        pruned, _ = Pipeline.parse("prune-channels{macs=0.5 ranking=layer criterion=l1}").run(whole, workspace(whole))
        return float(np.square([pruned(batch)[0] - whole(batch)[0] for batch in inputs]).mean())

    with_sums = error()
    monkeypatch.setattr(layers, "find_junction", lambda *_: None)
    assert with_sums == pytest.approx(error(), rel=0.02)

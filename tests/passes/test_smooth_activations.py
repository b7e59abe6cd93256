"""Outlying channels behind layer normalisations: the network stays what it was, and its 8-bit form gains."""

from __future__ import annotations

import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Drift, Verifier, relative_difference
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline


class Vit(nn.Module):
    """Patches, two blocks of attention and a network for each token, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        block = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        found: torch.Tensor = self.head(self.norm(tokens).mean(1))
        return found


@pytest.fixture(scope="module")
def vit() -> Model:
    """A transformer two of whose channels are far larger than the others, and are read by small weights."""
    torch.manual_seed(0)
    net = Vit().eval()
    with torch.no_grad():
        for block in net.blocks.layers:
            for norm, reader in ((block.norm1, block.self_attn.in_proj_weight), (block.norm2, block.linear1.weight)):
                norm.weight[[3, 17]] *= 60
                reader[:, [3, 17]] /= 60
    return from_module(net, torch.zeros(1, 3, 16, 16))


def smoothed(model: Model, options: str = "") -> tuple[Model, Outcome]:
    result, (step,) = Pipeline.parse(f"smooth-activations{options}").run(model, normal(model), [Verifier(), Drift()])
    return result, step.outcome


def decibels(model: Model, passes: str) -> float:
    """What the outputs lose when the model is quantised behind some passes."""
    _, steps = Pipeline.parse(f"{passes}insert-fake-quant,calibrate").run(model, normal(model))
    return float(steps[-1].outcome.notes[0].split("': ")[1].split(" dB")[0])


def test_outliers_move_into_the_weights(vit: Model) -> None:
    made, outcome = smoothed(vit)
    assert len(outcome.changed) == 4
    before, after = (float(part.split()[-1]) for part in outcome.notes[0].split(" dB")[:2])
    assert after > before + 10
    inputs = seeded_inputs(vit.inputs, 1)
    assert relative_difference(made(*inputs)[0], vit(*inputs)[0]) < 1e-5


def test_the_quantised_network_gains(vit: Model) -> None:
    assert decibels(vit, "O1,merge-duplicates,smooth-activations,") > decibels(vit, "O1,merge-duplicates,") + 6


def test_what_gains_little_stays() -> None:
    torch.manual_seed(0)
    _, outcome = smoothed(from_module(Vit().eval(), torch.zeros(1, 3, 16, 16)))
    assert outcome.changed == []
    assert sum("would gain less than 1 dB" in skip.reason for skip in outcome.skipped) == 4


def test_a_last_normalisation_that_is_averaged_stays(vit: Model) -> None:
    _, outcome = smoothed(vit)
    (skip,) = outcome.skipped
    assert "(mean) reads it, which is no linear layer" in skip.reason


PAIR = """
    model pair(x: f32[1,4,6])
      @g : f32[6]
      @b : f32[6]
      @w : f32[5,6]
      %norm = layer_norm(%x, [6], NORM, 1e-05)
      %moved = MOVE
      %y = linear(%moved, @w)
      return out=LAST
"""


@pytest.mark.parametrize(
    ("norm", "move", "last", "reason"),
    [
        ("@g, @b", "permute(%norm, [1, 0, 2])", "%y", ""),
        ("@g, @b", "reshape(%norm, [2, 2, 6])", "%y", ""),
        ("@g, @b", "reshape(%norm, [1, 4, 6])", "%norm", "reads it"),
        ("@g, @b", "relu(%norm)", "%y", "(relu) reads it"),
        ("@g, None", "permute(%norm, [1, 0, 2])", "%y", "its bias is missing"),
        ("None, None", "permute(%norm, [1, 0, 2])", "%y", "its weight is missing"),
        ("@g, @g", "permute(%norm, [1, 0, 2])", "%y", ""),
    ],
)
def test_where_a_scale_can_move(norm: str, move: str, last: str, reason: str) -> None:
    text = PAIR.replace("NORM", norm).replace("MOVE", move).replace("LAST", last)
    lines = [line for line in text.splitlines() if not line.strip().startswith("@b") or "@b" in norm]
    lines = [line for line in lines if not line.strip().startswith("@g") or "@g" in norm]
    model = parse_model("\n".join(lines))
    for name in {"g", "w"} & set(dict(model.module.named_parameters())):
        with torch.no_grad():
            model.module.get_parameter(name)[..., 2] *= 100 if name == "g" else 0.01
    made, outcome = smoothed(model)
    if reason:
        assert [reason in skip.reason for skip in outcome.skipped] == [True]
        assert made.to_text() == model.to_text()
    else:
        assert outcome.changed == ["norm"]


def test_a_network_without_layer_normalisation_needs_no_data() -> None:
    model = from_module(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    _, (step,) = Pipeline.parse("smooth-activations").run(model)
    assert not step.outcome.changed + step.outcome.skipped


@pytest.mark.parametrize(("options", "message"), [("strength=2", "strength must be"), ("images=0", "at least 1")])
def test_misuse(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline.parse(f"smooth-activations{{{options}}}")

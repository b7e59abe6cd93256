"""What passes learn from data does not depend on how many images run at once, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running import batches

NETWORK = parse_model("""
    model network(x: f32[1,3,8,8])
      @a.weight : f32[8,3,3,3]
      @a.bias : f32[8]
      @a.scale : f32[8]
      @a.mean : f32[8]
      @a.var : f32[8] = 2.0
      @b.weight : f32[8,1,3,3]
      @c.weight : f32[8,8,1,1]
      @e.weight : f32[8,4,1,1]
      @n.weight : f32[16]
      @n.bias : f32[16]
      @d.weight : f32[6,16]
      %a = conv2d(%x, @a.weight, @a.bias, [2, 2], [1, 1])
      %norm = batch_norm(%a, @a.scale, None, @a.mean, @a.var, False, 0.1, 1e-05, True)
      %relu = relu(%norm)
      %b = conv2d(%relu, @b.weight, None, [1, 1], [1, 1], [1, 1], 8)
      %swish = relu(%b)
      %c = conv2d(%swish, @c.weight)
      %sum = add(%c, %relu)
      %e = conv2d(%sum, @e.weight, None, [1, 1], [0, 0], [1, 1], 2)
      %joined = cat([%sum, %e], 1)
      %mean = mean(%joined, [2, 3])
      %scaled = layer_norm(%mean, [16], @n.weight, @n.bias)
      %d = linear(%scaled, @d.weight)
      return out=%d
""")
"""A residual block with places that are quantised as one, in front of a layer normalisation."""

QUANTISED = "fold-batch-norm,insert-fake-quant,calibrate"
EXACT = [
    "recalibrate-batch-norm",
    "fold-batch-norm,equalise-weights",
    "smooth-activations",
    QUANTISED,
    f"{QUANTISED}{{estimator=min-max}}",
    f'{QUANTISED}{{estimator="moving-average{{batch=7 weight=0.3}}"}}',
    f"{QUANTISED}{{estimator=entropy}}",
    "mixed-precision{bytes=0.5}",
    "prune-sensitivity{criterion=taylor ratios=0.5}",
    "prune-channels{macs=0.7}",
    *(
        f"prune-channels{{macs=0.7 criterion={name} ranking=layer}}"
        for name in ("activation-mean", "activation-entropy", "gradient", "fisher", "obd", "channel-attention")
    ),
]
ROUNDING = [f"{QUANTISED},correct-bias{{always=true}}", f"{QUANTISED},round-weights{{always=true}}"]
"""A rounding error before a quantised value may move that to the next integer, and what is fitted to it."""


def run(text: str, images: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Outcome]:
    random = np.random.default_rng(0)
    data = [(random.standard_normal((1, 3, 8, 8)).astype(np.float32), int(random.integers(6))) for _ in range(45)]
    monkeypatch.setattr(batches, "MOST", images)
    monkeypatch.setattr(batches, "_MOST_BYTES", 1 << 40)
    assert batches.images_at_once(NETWORK) == images
    model, steps = Pipeline.parse(text).run(NETWORK, Workspace(data={"calib": lambda: data}, threads=1))
    return model, steps[-1].outcome


def numbers(model: Model) -> torch.Tensor:
    literals = [
        float(value) for node in model.module.graph.nodes for value in node.args if isinstance(value, int | float)
    ]
    stored = [value.detach().flatten().double() for value in model.module.state_dict().values()]
    return torch.cat([torch.tensor(literals, dtype=torch.float64), *stored])


@pytest.mark.parametrize("text", EXACT)
def test_the_batch_changes_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (wanted, said), (found, outcome) = (run(text, images, monkeypatch) for images in (1, 11))
    torch.testing.assert_close(numbers(found), numbers(wanted), rtol=1e-2, atol=1e-3)
    assert outcome.changed == said.changed
    assert len(outcome.changed) + len(outcome.tables) > 0


@pytest.mark.parametrize("text", ROUNDING)
def test_the_batch_changes_no_more_than_rounding_errors_do(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (wanted, _), (found, outcome) = (run(text, images, monkeypatch) for images in (1, 11))
    difference = (numbers(found) - numbers(wanted)).square().mean().sqrt()
    assert float(difference) < 0.02 * float(numbers(wanted).square().mean().sqrt())
    assert outcome.changed


def test_moving_averages_count_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a range estimator are images, whatever runs at once; other sizes of theirs give other ranges."""
    texts = [f'{QUANTISED}{{estimator="moving-average{{batch={size} weight=0.3}}"}}' for size in (7, 11)]
    first, second = (numbers(run(text, 11, monkeypatch)[0]) for text in texts)
    assert not torch.allclose(first, second, rtol=1e-2, atol=1e-3)

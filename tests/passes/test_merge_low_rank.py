"""Two layers behind each other become one where that is no more work, and computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.low_rank.factorisation import METHODS
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.layer import layer_of
from lvc.passes.low_rank.merging import compose
from lvc.passes.low_rank.placing import put_in_place


def merged(*layers: nn.Module, channels: int = 6) -> tuple[int, Outcome]:
    torch.manual_seed(0)
    model = from_module(nn.Sequential(*layers).eval(), torch.randn(1, channels, 9, 8))
    made, (step,) = Pipeline.parse("merge-low-rank").run(model, observers=[Verifier(), Drift()])
    return len(list(calls(made.module.graph, *LAYERS))), step.outcome


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1)),
        (nn.Conv2d(6, 5, 3, padding=1, stride=2), nn.Conv2d(5, 4, 1, stride=2)),
        (nn.Conv2d(6, 5, 1, stride=2, bias=False), nn.Conv2d(5, 4, 3, padding=1, dilation=2)),
        (nn.Conv2d(6, 36, (3, 1), groups=3, padding=(1, 0)), nn.Conv2d(36, 4, (1, 3))),
        (nn.Conv2d(6, 12, 1, groups=2), nn.Conv2d(12, 4, 3, groups=2)),
        (nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 1, 1)),
        (nn.ConvTranspose2d(6, 5, 4, 2, 1), nn.Conv2d(5, 3, 1)),
        (nn.Conv2d(6, 9, 1, bias=False), nn.ConvTranspose2d(9, 3, 3, 2, output_padding=1)),
        (nn.ConvTranspose2d(6, 9, 1, bias=False), nn.ConvTranspose2d(9, 3, 3, 2)),
        (nn.Conv2d(6, 6, 1), nn.ConvTranspose2d(6, 3, 1)),
        (nn.Conv2d(6, 6, 3, padding=1), nn.ConvTranspose2d(6, 3, 1)),
        (nn.ConvTranspose2d(6, 6, 1, bias=False), nn.Conv2d(6, 3, 3, padding=1)),
        (nn.ConvTranspose2d(6, 6, 1), nn.Conv2d(6, 3, 1, stride=2)),
        (nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1)),
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_layers_are_one(layers: tuple[nn.Module, ...]) -> None:
    assert merged(*layers)[0] == 1


def test_linear_layers_are_one() -> None:
    count, outcome = merged(nn.Flatten(), nn.Linear(432, 9), nn.Linear(9, 3, bias=False))
    assert count == 1
    assert len(outcome.changed) == 1


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)), "one layer has 2.59 kMACs, the two have 1.73 kMACs"),
        ((nn.Conv2d(6, 9, 1), nn.Conv2d(9, 2, 3, padding=1)), "pads with zeros, where the first adds a bias"),
        ((nn.Conv2d(6, 9, 1), nn.ConvTranspose2d(9, 2, 3)), "counts more in some places than in others"),
        ((nn.Conv2d(6, 6, 1), nn.ConvTranspose2d(6, 3, 1, 2)), "counts more in some places than in others"),
        ((nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)), "their windows slide along the same axis"),
        (
            (nn.ConvTranspose2d(6, 6, (2, 1), (2, 1)), nn.Conv2d(6, 6, (1, 2))),
            "one of them is transposed, and both have a window",
        ),
    ],
    ids=["more work", "padding", "transposed bias", "stride", "windows", "both"],
)
def test_layers_stay_with_a_reason(layers: tuple[nn.Module, ...], reason: str) -> None:
    count, outcome = merged(*layers)
    assert count == 2
    assert reason in outcome.skipped[0].reason


def test_work_is_compared_before_weights_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[str] = []

    def counted(first: Kernel, second: Kernel) -> Kernel:
        products.append(first.weight.device.type)
        return compose(first, second)

    monkeypatch.setattr("lvc.passes.merge_low_rank.compose", counted)
    assert merged(nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1))[0] == 2
    assert products == ["meta"]
    assert merged(nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1))[0] == 1
    assert products == ["meta", "meta", "cpu"]


def test_a_layer_between_whose_result_is_read_twice_stays() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.second(x) + x

    count, outcome = merged(Net())
    assert (count, outcome.changed, outcome.skipped) == (2, [], [])


@pytest.mark.parametrize("name", ["channel-svd", "spatial-svd", "tucker2", "depthwise-separable", "svd"])
def test_factors_of_full_rank_become_the_layer_again(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU())
    image = torch.randn(1, 4, 8, 8)
    model = from_module(net.eval(), image)
    (wanted,), method, module = model(image), METHODS.parse(name), model.module
    for node in calls(module.graph, *LAYERS):
        kernel = layer_of(module, node).kernel
        if not method.refusal(kernel):
            put_in_place(module, node, method.factor(kernel, method.full_ranks(kernel)))
    module.recompile()
    verify(model)
    assert len(list(calls(module.graph, *LAYERS))) > 2
    made, _ = Pipeline.parse("merge-low-rank").run(model, observers=[Verifier(), Drift()])
    assert len(list(calls(made.module.graph, *LAYERS))) == 2
    assert abs(made(image)[0] - wanted).max() < 1e-5

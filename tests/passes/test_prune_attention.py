"""Attention loses channels of its heads, or whole heads, and what is left computes the same."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.passes.analysis.channels.masking import BOUND

HEADS, WIDTH = 4, 32


@cache
def network(name: str) -> Model:
    torch.manual_seed(0)
    modules = {
        "vit": lambda: VisionTransformer(32, 8, 2, HEADS, WIDTH, 64, num_classes=10),
        "swin": lambda: SwinTransformer([4, 4], 16, [2], [HEADS], [4, 4], num_classes=10),
        "swin_v2": lambda: SwinTransformer(
            [4, 4], 16, [2], [HEADS], [4, 4], 4.0, 0.0, 0.0, 0.0, 10, None, SwinTransformerBlockV2, PatchMergingV2
        ),
    }
    module = modules[name]().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return from_module(module, torch.zeros(1, 3, 32, 32))


def prune(name: str, options: str) -> tuple[Model, Outcome]:
    pruned, (step,) = Pipeline.parse(f"prune-channels{{{options}}}").run(network(name), observers=[Verifier()])
    return pruned, step.outcome


def scores(model: Model) -> list[tuple[int, int]]:
    """Return how many heads the products of queries and keys have, and how many channels each of them sums."""
    products = [node for node in calls(model.module.graph, aten.matmul.default) if node.args[1].op == "call_function"]  # type: ignore[union-attr]
    return [(spec(node).shape[-3], spec(node.args[0]).shape[-1]) for node in products[::2]]  # type: ignore[arg-type]


def proof(outcome: Outcome) -> float:
    (note,) = (note for note in outcome.notes if note.startswith("proof:"))
    return float(note.split()[7])


@pytest.mark.parametrize("name", ["vit", "swin", "swin_v2"])
@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_whole_heads_go(name: str, ranking: str) -> None:
    heads, width = zip(*scores(network(name)), strict=True)
    pruned, outcome = prune(name, f"macs=0.4 heads=true ranking={ranking}")
    left, channels = zip(*scores(pruned), strict=True)
    assert channels == width
    assert all(1 <= now <= HEADS for now in left)
    assert sum(left) < sum(heads)
    assert proof(outcome) < BOUND


def test_heads_become_narrower_by_default() -> None:
    pruned, outcome = prune("vit", "ratio=0.5 ranking=layer")
    assert scores(pruned) == [(HEADS, WIDTH // HEADS // 2)] * 2
    assert proof(outcome) < BOUND

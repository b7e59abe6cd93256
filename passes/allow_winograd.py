"""Mark convolutions that a backend may compute by minimal filtering: Winograd's algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.cook_toom import KERNELS, PAIRS
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import WINOGRAD, arguments, calls, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.filtering import rounding
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class AllowWinograd(Pass):
    """Mark the convolutions of 3x3, 3x1 and 1x3 taps that a backend may compute with fewer multiplications, by
    Winograd's algorithm.

    F(4x4, 3x3) takes a quarter of the multiplications, F(2x2, 3x3) four ninths, F(4, 3) along one axis a half, F(2, 3)
    two thirds, and all round differently from a plain sum. The error of each is measured with the layer's own weights
    on seeded normal data, against double precision; the largest tile within the limit is marked. Whether it is used is
    the backend's choice. An infinity or NaN in the data spreads over the whole tile.
    """

    name: ClassVar[str] = "allow-winograd"
    effect: ClassVar[Effect] = Effect.ROUNDING

    tile: int = option(4, "largest tile of outputs: 4, 2, or 0 to take all marks away")
    error: float = option(1e-5, "largest error of a layer, relative to its largest output")

    def __post_init__(self) -> None:
        if self.tile not in (0, *PAIRS):
            raise UsageError("tile must be 4, 2 or 0")
        if self.error <= 0:
            raise UsageError("error must be positive")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        for node in calls(model.module.graph, aten.conv2d.default):
            tile = self._tile(model.module, node, workspace.seed, outcome)
            if node.meta.get(WINOGRAD, 0) != tile:
                outcome.change(node)
            node.meta.pop(WINOGRAD, None)
            if tile:
                node.meta[WINOGRAD] = tile
        return outcome

    def _tile(self, module: GraphModule, node: Node, seed: int, outcome: Outcome) -> int:
        """The tile to mark a convolution with; 0 for none, with the reason in the outcome if it has as few taps."""
        tiles = [tile for tile in sorted(PAIRS, reverse=True) if tile <= self.tile]
        if not tiles or spec(arguments(node)["weight"]).shape[2:] not in KERNELS:
            return 0
        if reason := refusal(module, node):
            outcome.skip(node, reason)
            return 0
        weight = tensor(module, arguments(node)["weight"])
        assert weight is not None
        errors = {}
        for tile in tiles:
            errors[tile] = rounding(weight.detach(), tile, seed)
            if errors[tile] <= self.error:
                return tile
        outcome.skip(node, f"its error would be {errors[tiles[-1]]:.1e} relative, beyond {self.error:.1e}")
        return 0


def refusal(module: GraphModule, node: Node) -> str | None:
    """Why a convolution with so few taps is not one that the algorithm is for; None if it is."""
    given = arguments(node)
    if any(size != 1 for size in given["stride"]):
        return "its stride is not 1"
    if any(size != 1 for size in given["dilation"]):
        return "it is dilated"
    if given["groups"] > 1 and spec(given["weight"]).shape[1] == 1:
        return "its groups have one channel each"
    if spec(node).dtype is not torch.float32:
        return f"it computes in {spec(node).dtype}"
    if tensor(module, given["weight"]) is None:
        return "its weight is computed in the graph"
    return None

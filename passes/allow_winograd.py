"""Mark convolutions that a backend may compute by minimal filtering: Winograd's algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.cook_toom import KERNELS, PAIRS, CookToom, Row
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import WINOGRAD, arguments, calls, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace

SAMPLED_OUTPUTS, SAMPLED_TILES = 32, 4


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
    if given["groups"] != 1:
        return "it has groups"
    if spec(node).dtype is not torch.float32:
        return f"it computes in {spec(node).dtype}"
    if tensor(module, given["weight"]) is None:
        return "its weight is computed in the graph"
    return None


def rounding(weight: torch.Tensor, tile: int, seed: int) -> float:
    """The error of a sample of outputs, relative to the largest: weights ``[O, C, KH, KW]``, normal data.

    Transforms, products and sums are done in single precision as a backend does them.
    """
    generator = torch.Generator().manual_seed(seed)
    some = weight[:: max(1, weight.shape[0] // SAMPLED_OUTPUTS)][:SAMPLED_OUTPUTS]
    size = [transform.points for transform in CookToom.both(tile, _kernel(weight))]
    data = torch.randn(SAMPLED_TILES, weight.shape[1], *size, generator=generator)
    exact = torch.nn.functional.conv2d(data.double(), some.double())
    return relative_difference(filtered(data, some, tile).numpy(), exact.numpy())


def filtered(data: torch.Tensor, weight: torch.Tensor, tile: int) -> torch.Tensor:
    """The convolution of a tile's data ``[N, C, H, W]`` with ``[O, C, KH, KW]``: ``A' [(G g G') * (B' d B)] A``."""
    both = CookToom.both(tile, _kernel(weight))
    points = _on_both_sides([t.data for t in both], data.permute(2, 3, 0, 1))
    factors = _on_both_sides([t.weights for t in both], weight.permute(2, 3, 0, 1))
    return _on_both_sides([t.sums for t in both], points @ factors.transpose(2, 3)).permute(2, 3, 0, 1)


def _kernel(weight: torch.Tensor) -> tuple[int, int]:
    return weight.shape[2], weight.shape[3]


def _on_both_sides(matrices: Sequence[Sequence[Row]], tiles: torch.Tensor) -> torch.Tensor:
    """``M t N'`` for tiles that lie in the first two axes."""
    for rows in matrices:
        matrix = torch.tensor(rows)
        tiles = (matrix @ tiles.reshape(tiles.shape[0], -1)).reshape(len(matrix), *tiles.shape[1:]).transpose(0, 1)
    return tiles

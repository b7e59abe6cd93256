"""Set weights to zero, those of least magnitude: one by one, or N of every M.

Unstructured: of each layer's weights the share ``ratio`` of least ``|w|`` goes (or of all layers' together), or every
``|w| < threshold``. N:M: in each run of M weights that one output sums, the N largest stay. For a convolution the runs
go along its input channels, at one place of the kernel, as hardware reads them.

No kernel of lvc skips zeros, so the model is **not faster**: it is smaller once compressed, and the note says by how
much. Regularising weights towards zero needs training, and comes with the passes that train. Sources: Han et al.,
"Learning both weights and connections for efficient neural networks", 2015; Mishra et al., "Accelerating sparse deep
neural networks", 2021, for N:M.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import calls, origin, store, tensor
from lvc.compiler.ir.layers import LAYERS, contraction, factors
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import tensor_bytes
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import percent, si, title
from lvc.passes.analysis.patterns import left_out


@dataclass(frozen=True, kw_only=True)
class Sparsify(Pass):
    """Set the least weights to zero: smaller when compressed, not faster."""

    name: ClassVar[str] = "sparsify"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = True

    ratio: float | None = option(None, "the share of weights to set to zero")
    threshold: float | None = option(None, "set weights of smaller magnitude to zero")
    pattern: str | None = option(None, "N:M, the N largest of every M weights along the input channels stay")
    ranking: Literal["layer", "global"] = option("layer", "for ratio: compare weights in each layer, or of all layers")
    skip: tuple[str, ...] = option((), "names of layers to leave alone, with * for any characters")

    def __post_init__(self) -> None:
        given = [name for name in ("ratio", "threshold", "pattern") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are both given", help="give one of them")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(f"ratio must be between 0 and 1, not {self.ratio:g}", help="it is the share that goes")
        if self.threshold is not None and not self.threshold > 0:
            raise UsageError(f"threshold must be above 0, not {self.threshold:g}")
        if self.pattern is not None:
            read_pattern(self.pattern)

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        found = dict(self._weights(model, outcome))
        before = _compressed(found.values())
        limit = self._limit(found)
        rows = []
        for node, weight in found.items():
            kept = self._mask(node, weight, limit)
            if isinstance(kept, str):
                outcome.skip(node, kept)
            elif not kept[weight != 0].all():
                sparse = weight * kept
                store(model.module, str(factors(node)[1].target), sparse)
                outcome.change(node)
                found[node] = sparse
            rows.append((title(origin(node)), weight.numel(), round(float((found[node] == 0).float().mean()), 4)))
        zeros = sum(int((weight == 0).sum()) for weight in found.values())
        weights = max(1, sum(weight.numel() for weight in found.values()))
        outcome.notes.append(
            f"{percent(zeros / weights)} of {si(weights)} weights are zero; compressed (zlib) they take "
            f"{si(_compressed(found.values()), 'B')}, before {si(before, 'B')}; the model is not faster"
        )
        outcome.tables.append(Table("zeros", ("layer", "weights", "share of zeros"), tuple(rows)))
        return outcome

    def _weights(self, model: Model, outcome: Outcome) -> Iterator[tuple[Node, torch.Tensor]]:
        layers = list(calls(model.module.graph, *LAYERS))
        skipped = left_out(layers, (), self.skip)
        seen: set[object] = set()
        for node in layers:
            _, stored = factors(node)
            weight = tensor(model.module, stored)
            if weight is None:
                outcome.skip(node, "its weight is computed in the graph")
            elif node in skipped:
                outcome.skip(node, skipped[node])
            elif stored not in seen:
                seen.add(stored)
                yield node, weight.detach()

    def _limit(self, found: dict[Node, torch.Tensor]) -> float | None:
        """Return the magnitude below which every weight goes, if that is one for all layers."""
        if self.ratio is None or self.ranking == "layer":
            return self.threshold
        together = torch.cat([weight.abs().flatten() for weight in found.values()]).sort().values
        return float(together[int(self.ratio * len(together))])

    def _mask(self, node: Node, weight: torch.Tensor, limit: float | None) -> torch.Tensor | str:
        """Return which weights stay, or why all do."""
        if self.pattern is not None:
            kept, of = read_pattern(self.pattern)
            return largest_of(weight, contraction(node).read, kept, of)
        if limit is not None:
            return weight.abs() >= limit
        if self.ratio is None:
            raise UsageError(
                "sparsify was not told what to set to zero",
                help="give ratio=0.5, threshold=0.01 or pattern=2:4",
            )
        gone = weight.abs().flatten().argsort(stable=True)[: int(self.ratio * weight.numel())]
        return torch.ones(weight.numel(), dtype=torch.bool).index_fill(0, gone, False).view(weight.shape)


def read_pattern(text: str) -> tuple[int, int]:
    """Read ``N:M``; `UsageError` unless ``0 < N < M``."""
    kept, _, of = text.partition(":")
    if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of)):
        raise UsageError(f"'{text}' is not a pattern N:M", help="for example 2:4, two of every four weights stay")
    return int(kept), int(of)


def largest_of(weight: torch.Tensor, axis: int, kept: int, of: int) -> torch.Tensor | str:
    """Return a mask of the ``kept`` largest of every ``of`` weights along an axis, that of the input channels."""
    rows = weight.movedim(axis, -1)
    if rows.shape[-1] % of:
        return f"it reads {rows.shape[-1]} channels, which is no multiple of {of}"
    runs = rows.reshape(*rows.shape[:-1], -1, of).abs()
    best = runs.argsort(stable=True, dim=-1, descending=True)[..., :kept]
    mask = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, best, True).reshape(rows.shape)
    return mask.movedim(-1, axis)


def _compressed(weights: Iterable[torch.Tensor]) -> int:
    return sum(len(zlib.compress(tensor_bytes(weight))) for weight in weights)

"""The model that what is left of another one is fitted to, however many removals lie between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lvc.compiler.ir.model import Model
from lvc.passes.analysis.channels.proof import Kept


@dataclass(frozen=True)
class Teacher:
    """A model as it was, and which indices of its values are left; names that ``kept`` lacks are whole."""

    model: Model
    kept: Kept

    @classmethod
    def of(cls, model: Model) -> Teacher:
        """A model as it is now."""
        return cls(model.copy(share_tensors=True), {})

    def after(self, kept: Kept) -> Teacher:
        """The same model once more has gone: ``kept`` says what stays of what was left."""
        return Teacher(self.model, {name: self._both(name, masks) for name, masks in kept.items()})

    def _both(self, name: str, masks: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
        known = self.kept.get(name, (None,) * len(masks))
        return tuple(_narrower(first, then) for first, then in zip(known, masks, strict=True))


def _narrower(first: torch.Tensor | None, then: torch.Tensor | None) -> torch.Tensor | None:
    """One mask of what stays after two, the second of which counts in what the first left."""
    if first is None or then is None:
        return then if first is None else first
    both = first.clone()
    both[first] = then
    return both

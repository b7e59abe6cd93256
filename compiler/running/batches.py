"""How many images run through a model at once, and its calls for them."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.ir.batching.batching import BatchError, Batching, Calls
from lvc.compiler.ir.model import Model
from lvc.compiler.running.memory import peak_activation_bytes

MOST = 16
_MOST_BYTES = 24 << 20
"""Of values alive at once: larger ones are in no cache, and batches of them are slower than image by image."""


def images_at_once(model: Model) -> int:
    """Return how many images run through a model at once: as many as its caches like, in whole signature batches.

    Those of the signature alone where the images of a batch would mix, or it is not proven that they do not.
    """
    size = fed_input(model.inputs).spec.shape[0]
    times = min(MOST // size, _MOST_BYTES // max(1, peak_activation_bytes(model)))
    if times <= 1:
        return size
    try:
        model.with_batch(2 * size)
    except BatchError:
        return size
    return times * size


class Parts:
    """The calls of a model for batches of any size, and their values in parts of the size that its signature has."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.size = model.inputs[0].spec.shape[0] if model.inputs and model.inputs[0].spec.shape else 1
        self._batching: Batching | None = None
        self._calls: dict[int, Calls] = {}

    def calls(self, images: int) -> Calls | None:
        """Return the calls for so many images; None for the graph as it is. `BatchError` if they would mix."""
        if images == self.size:
            return None
        if images not in self._calls:
            self._batching = self._batching or Batching(self._model)
            self._calls[images] = self._batching.calls(images)
        return self._calls[images]

    def of(self, node: Node, value: torch.Tensor, calls: Calls | None) -> list[torch.Tensor]:
        """Return the parts of a value, each as the graph as it is has it; views where images lie together."""
        if calls is None:
            return [value]
        return [calls.part(node, value, place) for place in range(calls.images // self.size)]

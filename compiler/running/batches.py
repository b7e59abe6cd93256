"""How many images run through a model at once, and its calls for them."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.ir.batching.batching import BatchError, Batching, Calls
from lvc.compiler.ir.batching.proof import prove
from lvc.compiler.ir.model import Model
from lvc.compiler.running.memory import activation_bytes, peak_activation_bytes

MOST = 64
"""As many images run at once at most; of small ones, more are hardly faster."""

_MOST_BYTES = 24 << 20
"""Of values alive at once: larger ones are in no cache, and batches of them are slower than image by image."""


_MOST_BYTES_HELD = 512 << 20
"""Of all values, where none is freed."""


def images_at_once(model: Model) -> int:
    """Return how many images run through a model at once: as many as its caches like, in whole signature batches.

    Those of the signature alone where the images of a batch would mix, or it is not proven that they do not.
    """
    size = fed_input(model.inputs).spec.shape[0]
    times = min(MOST // size, _MOST_BYTES // max(1, peak_activation_bytes(model)))
    if times <= 1:
        return size
    try:
        prove(model, Batching(model), 2 * size)
    except BatchError:
        return size
    return times * size


def images_held(model: Model) -> int:
    """Return of how many images all values are held at once, as derivatives take; at least those of the signature."""
    size = fed_input(model.inputs).spec.shape[0]
    return max(1, _MOST_BYTES_HELD // max(1, activation_bytes(model))) * size


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

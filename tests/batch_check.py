"""Does a model for another number of images give each of them what it gets alone?"""

from __future__ import annotations

import numpy as np

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify


def check(model: Model, images: int, bound: float = 1e-5) -> Model:
    """Run different images together, and in turns by the model as it is; compare every one of them."""
    batch = len(seeded_inputs(model.inputs, 0)[0])
    twin = model.with_batch(images)
    verify(twin)
    inputs = seeded_inputs(twin.inputs, 1)
    together = twin(*inputs)
    for first in range(0, images, batch):
        rows = [row % images for row in range(first, first + batch)]
        alone = model(*(value[rows] for value in inputs))
        count = min(batch, images - first)
        for found, wanted in zip(together, alone, strict=True):
            each = len(wanted) // batch
            ours, theirs = found[first * each :][: count * each], wanted[: count * each]
            assert ours.shape == theirs.shape
            assert np.abs(ours.astype(np.float64) - theirs).max() <= bound * max(1e-9, np.abs(theirs).max())
    return twin

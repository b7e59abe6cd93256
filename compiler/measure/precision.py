"""How far single precision itself is from the exact result: what a network's own conditioning makes of rounding."""

from __future__ import annotations

import numpy as np
import torch

from lvc.compiler.ir.model import Model


def exact_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...] | None:
    """Run a model in double precision; None if it has parts that are tied to single precision."""
    twin = model.copy().module.double()
    tensors = [torch.from_numpy(array) for array in inputs]
    try:
        with torch.inference_mode():
            outputs = twin(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors))
    except RuntimeError:  # a cast to single precision inside the graph meets double weights
        return None
    return tuple(output.numpy() for output in outputs)

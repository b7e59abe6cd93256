"""PyTorch, eager, on the CPU."""

from __future__ import annotations

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run


class Torch(Engine):
    """The traced graph, operator by operator, in inference mode. Sets the process's number of threads."""

    name = "torch"
    package = "torch"

    def prepare(self, original: Original, threads: int) -> Run:
        import torch

        torch.set_num_threads(threads)
        module = original.model.module

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                outputs = module(*map(torch.from_numpy, inputs))
            return tuple(output.numpy() for output in outputs)

        return run


ENGINE = Torch()

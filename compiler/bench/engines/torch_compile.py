"""PyTorch, compiled by Inductor, on the CPU."""

from __future__ import annotations

import contextlib
import io
import os

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run
from lvc.compiler.data.seeded import seeded_inputs


class TorchCompile(Engine):
    """The traced graph through ``torch.compile`` with tuning of its products, in inference mode and with its weights
    frozen. Sets the process's number of threads; takes a C++ compiler and, the first time, minutes."""

    name = "torch_compile"
    package = "torch"

    def prepare(self, original: Original, threads: int) -> Run:
        os.environ["TORCHINDUCTOR_FREEZING"] = "1"  # read when Inductor is first imported
        import torch

        torch.set_num_threads(threads)
        compiled = torch.compile(original.model.module, mode="max-autotune-no-cudagraphs")

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                outputs = compiled(*map(torch.from_numpy, inputs))
            return tuple(output.numpy() for output in outputs)

        with contextlib.redirect_stderr(io.StringIO()):  # which products it tried
            run(*seeded_inputs(original.model.inputs, 0))
        return run


ENGINE = TorchCompile()

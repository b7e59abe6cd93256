"""PyTorch, eager, on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    import torch


class TorchCuda(Engine):
    """The traced graph, operator by operator, in inference mode and without TF32; arrays go to the GPU and back."""

    name = "torch_cuda"
    package = "torch"

    def prepare(self, original: Original, threads: int) -> Run:
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"{self.name} cannot run this model", why="PyTorch finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        module = self.compiled(deepcopy(original.model.module).cuda())

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(array).cuda() for array in inputs))
            return tuple(output.cpu().numpy() for output in outputs)

        return run

    def compiled(self, module: torch.nn.Module) -> Callable[..., Any]:
        """What is run of a module that lies on the GPU."""
        return module


ENGINE = TorchCuda()

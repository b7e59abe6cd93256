"""PyTorch, eager, on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    import torch


class TorchCuda(Engine):
    """The traced graph, operator by operator, in inference mode and without TF32; arrays go to the GPU and back. With
    ``half`` weights and values are float16 there."""

    name = "torch_cuda"
    package = "torch"
    half: ClassVar[bool] = False

    def prepare(self, original: Original, threads: int) -> Run:
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"{self.name} cannot run this model", why="PyTorch finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        module = deepcopy(original.model.module).cuda()
        run_module = self.compiled(module.half() if self.half else module)

        def placed(array: np.ndarray) -> torch.Tensor:
            tensor = torch.from_numpy(array).cuda()
            return tensor.half() if self.half and tensor.is_floating_point() else tensor

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                outputs = run_module(*map(placed, inputs))
            return tuple((one.float() if one.dtype == torch.float16 else one).cpu().numpy() for one in outputs)

        return run

    def compiled(self, module: torch.nn.Module) -> Callable[..., Any]:
        """What is run of a module that lies on the GPU."""
        return module


ENGINE = TorchCuda()

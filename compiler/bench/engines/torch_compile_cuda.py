"""PyTorch, compiled by Inductor, on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lvc.compiler.bench.engines.torch_cuda import TorchCuda

if TYPE_CHECKING:
    import torch


class TorchCompileCuda(TorchCuda):
    """The traced graph through ``torch.compile`` with CUDA graphs; the first call takes minutes."""

    name = "torch_compile_cuda"

    def compiled(self, module: torch.nn.Module) -> Callable[..., Any]:
        import torch

        return torch.compile(module, mode="reduce-overhead")


ENGINE = TorchCompileCuda()

"""PyTorch, eager, in float16, on the GPU of this machine."""

from __future__ import annotations

from lvc.compiler.bench.engines.torch_cuda import TorchCuda


class TorchCudaFp16(TorchCuda):
    """The same with weights and values in float16."""

    name = "torch_cuda_fp16"
    half = True


ENGINE = TorchCudaFp16()

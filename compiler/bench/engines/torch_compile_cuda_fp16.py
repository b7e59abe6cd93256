"""PyTorch, compiled by Inductor, in float16, on the GPU of this machine."""

from __future__ import annotations

from lvc.compiler.bench.engines.torch_compile_cuda import TorchCompileCuda


class TorchCompileCudaFp16(TorchCompileCuda):
    """The same with weights and values in float16."""

    name = "torch_compile_cuda_fp16"
    half = True


ENGINE = TorchCompileCudaFp16()

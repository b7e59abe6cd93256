"""TensorRT, as ONNX Runtime's provider."""

from __future__ import annotations

from lvc.compiler.bench.engines.onnxruntime_cuda import OnnxRuntimeCuda


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """One session, which builds for minutes; arrays go to the GPU and back. TensorRT multiplies in TF32 where the GPU
    has it, unless the environment says ``NVIDIA_TF32_OVERRIDE=0``."""

    name = "onnxruntime_tensorrt"
    provider = "TensorrtExecutionProvider"
    settings = {}


ENGINE = OnnxRuntimeTensorRt()

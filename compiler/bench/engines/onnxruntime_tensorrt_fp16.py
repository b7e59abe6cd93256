"""TensorRT in float16, as ONNX Runtime's provider."""

from __future__ import annotations

from lvc.compiler.bench.engines.onnxruntime_tensorrt import OnnxRuntimeTensorRt


class OnnxRuntimeTensorRtFp16(OnnxRuntimeTensorRt):
    """The same with leave to compute in float16, wherever TensorRT finds it faster."""

    name = "onnxruntime_tensorrt_fp16"
    settings = {"trt_fp16_enable": True}


ENGINE = OnnxRuntimeTensorRtFp16()

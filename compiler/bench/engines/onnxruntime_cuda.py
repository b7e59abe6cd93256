"""ONNX Runtime on its CUDA provider."""

from __future__ import annotations

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run
from lvc.compiler.errors import UsageError

PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCuda(Engine):
    """One session without TF32; arrays go to the GPU and back."""

    name = "onnxruntime_cuda"
    package = "onnxruntime-gpu"

    def prepare(self, original: Original, threads: int) -> Run:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(str(original.onnx), options, providers=[(PROVIDER, {"use_tf32": 0})])
        if PROVIDER not in session.get_providers():  # which falls back to the CPU without a word
            raise UsageError(f"{self.name} cannot run this model", why="ONNX Runtime finds no GPU")
        names = [item.name for item in session.get_inputs()]

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return run


ENGINE = OnnxRuntimeCuda()

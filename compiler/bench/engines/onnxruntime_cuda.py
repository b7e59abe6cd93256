"""ONNX Runtime on its CUDA provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run
from lvc.compiler.errors import UsageError


class OnnxRuntimeCuda(Engine):
    """One session without TF32; arrays go to the GPU and back. ``provider`` runs the model, by its ``settings``."""

    name = "onnxruntime_cuda"
    package = "onnxruntime-gpu"
    provider: ClassVar[str] = "CUDAExecutionProvider"
    settings: ClassVar[Mapping[str, object]] = {"use_tf32": 0}

    def prepare(self, original: Original, threads: int) -> Run:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        chosen = [(self.provider, dict(self.settings))]
        session = ort.InferenceSession(str(original.onnx), options, providers=chosen)
        if self.provider not in session.get_providers():  # which falls back to others without a word
            raise UsageError(f"{self.name} cannot run this model", why=f"ONNX Runtime has no {self.provider} here")
        names = [item.name for item in session.get_inputs()]

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return run


ENGINE = OnnxRuntimeCuda()

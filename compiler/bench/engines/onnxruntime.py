"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run


class OnnxRuntime(Engine):
    """One session with all graph optimisations; operators run one after the other."""

    name = "onnxruntime"
    package = "onnxruntime"

    def prepare(self, original: Original, threads: int) -> Run:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        session = ort.InferenceSession(str(self.file(original)), options, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_inputs()]

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return run

    def file(self, original: Original) -> Path:
        """The model in a form that ONNX Runtime reads."""
        return original.onnx


ENGINE = OnnxRuntime()

"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from lvc.compiler.bench.engine import Engine, Original, Run


class OpenVino(Engine):
    """One request, tuned for latency; 32-bit floats, since its default on newer processors is bfloat16."""

    name = "openvino"
    package = "openvino"
    precision: ClassVar[str | None] = "f32"

    def prepare(self, original: Original, threads: int) -> Run:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(self.file(original)))
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            **({"INFERENCE_PRECISION_HINT": self.precision} if self.precision else {}),
        }
        compiled = core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()

        def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
            return tuple(results[output] for output in compiled.outputs)

        return run

    def file(self, original: Original) -> Path:
        """The model in a form that OpenVINO reads."""
        return original.onnx


ENGINE = OpenVino()

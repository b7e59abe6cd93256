"""The backend that writes ONNX, for every other runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Backend, Executable, Target
from lvc.compiler.errors import CompileError

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace

OLDEST, DEFAULT, NEWEST = 17, 21, 23
FILE = "model.onnx"


class OnnxBackend(Backend):
    """Writes the graph as an ONNX model of a given opset; runs it in ONNX Runtime where that is installed."""

    name: ClassVar[str] = "onnx"
    model_suffix: ClassVar[str] = ".onnx"
    keeps_simulation: ClassVar[bool] = True

    def targets(self) -> dict[str, str]:
        numbered = {f"onnx-{opset}": f"an ONNX model of opset {opset}" for opset in range(OLDEST, NEWEST + 1)}
        return {"onnx": f"an ONNX model, the same as onnx-{DEFAULT}"} | numbered

    def parse_target(self, text: str) -> Target | None:
        return Target(text, self.name, "onnx") if text in self.targets() else None

    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        from lvc.backends.onnx.writer import write_onnx

        _, _, opset = target.text.partition("-")
        return Artefact(
            name=model.name,
            backend=self.name,
            target=target.text,
            inputs=model.inputs,
            outputs=model.outputs,
            files={FILE: write_onnx(model, int(opset or DEFAULT))},
            suffix=self.model_suffix,
        )

    def load(self, artefact: Artefact, threads: int | None = None) -> Executable:
        return _Session(artefact, threads)


class _Session:
    def __init__(self, artefact: Artefact, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise CompileError(
                "an ONNX artefact runs in ONNX Runtime, which is not installed",
                help="pip install onnxruntime, or build for the target 'reference'",
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        try:
            self.session = onnxruntime.InferenceSession(artefact.files[FILE], options, ["CPUExecutionProvider"])
        except Exception as error:  # the runtime has many error types of its own
            raise CompileError("ONNX Runtime refuses the model", why=str(error).splitlines()[0]) from error
        self.names = [value.name for value in artefact.inputs]

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self.session.run(None, dict(zip(self.names, inputs, strict=True))))


BACKEND = OnnxBackend()

"""A process of its own that runs an ONNX file by ONNX Runtime, or by ``onnx.reference``: it is bounded in time and may
crash, as a file that nobody vouches for can make it.

Standard input is one line of JSON, ``{"file": ..., "names": [...], "outputs": [...], "engine": ...}``, then an ``.npz``
of the inputs in that order; standard output the ``.npz`` of the outputs. The last line of standard error says why there
is none. Run by path, so it imports nothing of lvc.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np

_TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def by_onnxruntime(file: str, feeds: dict[str, np.ndarray], outputs: list[str]) -> list[Any]:
    """Run every node as it stands in the file: optimised kernels would hide which node is meant."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    types = {value.name: _TYPES.get(value.type) for value in session.get_inputs()}
    cast = {name: array.astype(types.get(name) or array.dtype) for name, array in feeds.items()}
    return list(session.run(outputs, cast))


def by_onnx_reference(file: str, feeds: dict[str, np.ndarray], outputs: list[str]) -> list[Any]:
    """Run every node by the standard's own definition in NumPy."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(file).run(outputs, feeds))


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as stored:
        arrays = [stored[f"arr_{number}"] for number in range(len(request["names"]))]
    engine = by_onnxruntime if request["engine"] == "onnxruntime" else by_onnx_reference
    found = engine(request["file"], dict(zip(request["names"], arrays, strict=True)), request["outputs"])
    buffer = io.BytesIO()
    np.savez(buffer, *map(np.asarray, found), allow_pickle=False)
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main()

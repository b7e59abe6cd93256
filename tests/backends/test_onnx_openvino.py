"""8-bit models that lvc writes, in OpenVINO: its plan computes every layer in integers, and gives what we give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lvc.compiler.load import from_module
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import DataSet, Workspace
from lvc.compiler.writing import write_model

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed; it is part of the extra 'bench'")

SHAPE = (1, 3, 16, 16)
# seven bits, since with eight OpenVINO is far from the simulation on AVX2
QUANTISE = "O1,insert-fake-quant{OPTIONS},calibrate{images=4}"
OPTIONS = (
    "weight_bits=7",
    "weight_bits=7 per_channel=false",
    "weight_bits=7 activation_symmetric=true",
    "weight_bits=4",
    "weight_bits=4 weight_format=codebook",
)


class Network(torch.nn.Module):
    """Convolutions of each kind around a residual block, with a function in floating point, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Linear(16, 10)
        self.left, self.right = torch.nn.Conv2d(16, 16, 1), torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.relu(x + self.right(torch.nn.functional.silu(self.left(x))))
        found: torch.Tensor = self.last(x.mean((2, 3)))
        return found


class Images(list[tuple[np.ndarray, int | None]]):
    """Random images."""


def images(seed: int = 0) -> DataSet:
    random = np.random.default_rng(seed)
    return Images((random.standard_normal(SHAPE).astype(np.float32), None) for _ in range(16))


@pytest.mark.parametrize("options", OPTIONS)
def test_quantised_models_run_as_int8_in_openvino(options: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = from_module(Network().eval(), torch.zeros(SHAPE))
    workspace = Workspace(data={"calib": images}, threads=1)
    simulated, _ = Pipeline.parse(QUANTISE.replace("OPTIONS", options)).run(model, workspace)
    write_model(simulated, tmp_path / "qdq.onnx")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "qdq.onnx"), "CPU", settings)
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    kinds = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in layers]
    computed = [precision for kind, precision in kinds if kind in ("Convolution", "FullyConnected")]
    assert len(computed) == 4
    assert set(computed) <= {"u8", "i8"}

    whole, _ = Pipeline.parse("lower-to-integer").run(simulated)
    pairs = [(whole(x)[0], compiled(x)[compiled.outputs[0]]) for x, _ in images(1)]
    ours, theirs = (np.concatenate(found) for found in zip(*pairs, strict=True))
    step = np.ptp(ours) / 255
    assert float((np.abs(ours - theirs) <= step).mean()) >= 0.95

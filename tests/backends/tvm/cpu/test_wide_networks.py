"""Whole networks as they are built for processors with AVX-512, run on any with AVX2; see `test_wide_vectors`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torchvision

from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace


@pytest.mark.isa("avx2", "fma")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("shufflenet_v2_x0_5", 64),
        pytest.param("mobilenet_v3_small", 224, marks=pytest.mark.slow),
        pytest.param("resnet18", 96, marks=pytest.mark.slow),
    ],
)
def test_network(name: str, size: int) -> None:
    network = torchvision.models.get_model(name, weights=None).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    model = from_module(network, torch.zeros(1, 3, size, size))
    rewritten, _ = Pipeline.parse("O2").run(model)
    features = targets.parse_target("x86-64-v4").features
    target = Target("AVX-512 without it", "tvm", "x86-64", "haswell", features)
    generator = CpuCodeGenerator.of(target)
    assert generator.vector.lanes == 16
    files = build_files(lower(rewritten, generator), generator, target, Workspace()).files
    plan = json.loads(files["plan.json"])
    runnable = {**files, "plan.json": json.dumps({**plan, "features": []}).encode()}
    (inputs,) = seeded_inputs(model.inputs, 0)
    (found,) = CpuExecutable(runnable, threads=2)(inputs)
    assert relative_difference(found, model(inputs)[0]) < 1e-5
    assert np.abs(found).max() > 0

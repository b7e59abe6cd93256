from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cxx_program import COMPILERS, LABELS, PREPROCESSING, Example, built

import lvc
from lvc.compiler import container


@pytest.fixture(scope="session", params=["O2", "O2,quantise-weights{bits=4 group=32}"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    )
    model = lvc.from_module(network, torch.zeros(1, 3, 16, 16))
    model.labels, model.preprocessing = LABELS, PREPROCESSING
    artefact = lvc.compile(model, request.param, verify=False)
    assert json.loads(artefact.files["plan.json"])["prepared_bytes"], "instances have nothing to share"
    example = Example(container.pack(artefact), tmp_path_factory.mktemp("model"), np.empty(0))
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    Path(example.file).write_bytes(example.content)
    Path(example.input).write_bytes(x.tobytes())
    result = lvc.load(artefact)(x)
    assert isinstance(result, np.ndarray)
    return Example(example.content, example.folder, result)


@pytest.fixture(scope="session")
def use(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not COMPILERS:
        pytest.skip("there is no compiler for C++")
    return built(tmp_path_factory.mktemp("use"), "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="session")
def use_on_threads(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not COMPILERS:
        pytest.skip("there is no compiler for C++")
    return built(tmp_path_factory.mktemp("use"), "-fsanitize=thread")

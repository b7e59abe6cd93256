"""Files that do not belong together, or not to a model at all: one clear error, and never a number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.plan import checksums
from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.workspace import Workspace

IMAGE = np.ones((1, 3, 6, 8), np.float32)
STRANGE = (None, True, -1, 0, 1 << 70, 1.5, "", "float32", [], [[]], {}, {"shape": [1]})


def build(layer: torch.nn.Module) -> Artefact:
    target = BACKEND.parse_target("native")
    assert target
    return BACKEND.build(from_module(layer, torch.from_numpy(IMAGE)), target, Workspace(threads=1))


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    torch.manual_seed(0)
    return build(torch.nn.Conv2d(3, 8, 3))


@pytest.fixture(scope="module")
def other() -> Artefact:
    """A model with the same signature, and as many steps and bytes of weights."""
    torch.manual_seed(1)
    return build(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()))


def planned(files: Mapping[str, bytes], plan: Any) -> dict[str, bytes]:
    return {**files, "plan.json": json.dumps(plan).encode()}


def mutations(value: Any) -> Iterator[Any]:
    """A plan with each of its values, at every depth, missing or strange."""
    places: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for place in places:
        for strange in STRANGE:
            changed = deepcopy(value)
            changed[place] = strange
            yield changed
        changed = deepcopy(value)
        del changed[place]
        yield changed
        if isinstance(value[place], (dict, list)):
            for inner in mutations(value[place]):
                changed = deepcopy(value)
                changed[place] = inner
                yield changed


def test_no_plan_makes_another_number_or_a_traceback(artefact: Artefact) -> None:
    (wanted,) = CpuExecutable(artefact.files, 1)(IMAGE)
    plan = json.loads(artefact.files["plan.json"])
    read = {name: plan[name] for name in plan if name not in ("setup", "steps")}
    read |= {
        name: [{key: step[key] for key in ("name", "nodes")} for step in plan[name]] for name in ("setup", "steps")
    }
    refused = 0
    for changed in mutations(read):
        try:
            run = CpuExecutable(planned(artefact.files, changed), 1)
        except LvcError:
            refused += 1
            continue
        np.testing.assert_array_equal(run(IMAGE)[0], wanted)
    assert refused > 100


@pytest.mark.parametrize("change", [{"inputs": [[1, 3, 8, 6]]}, {"outputs": [[1, 8, 6, 4]]}, {"inputs": []}])
def test_a_plan_that_lies_about_shapes_is_refused(artefact: Artefact, change: dict[str, list[list[int]]]) -> None:
    plan = json.loads(artefact.files["plan.json"])
    (side, shapes), *_ = change.items()
    plan[side] = [{"shape": shape, "dtype": "float32"} for shape in shapes]
    with pytest.raises(CompileError, match="damaged") as caught:
        CpuExecutable(planned(artefact.files, plan))
    assert "another model than its plan" in caught.value.why


@pytest.mark.parametrize("name", ["model.so", "weights.bin"])
def test_a_file_of_another_model_is_refused(artefact: Artefact, other: Artefact, name: str) -> None:
    assert len(artefact.files["weights.bin"]) == len(other.files["weights.bin"])
    with pytest.raises(CompileError, match="damaged") as caught:
        CpuExecutable({**artefact.files, name: other.files[name]})
    assert caught.value.why == f"its {name} is not the one that its plan is of"


@pytest.mark.parametrize("name", ["model.so", "weights.bin"])
@pytest.mark.parametrize("cut", [0, 1, 64, -1])
def test_a_file_that_is_cut_short_is_refused(artefact: Artefact, name: str, cut: int) -> None:
    with pytest.raises(CompileError, match="damaged"):
        CpuExecutable({**artefact.files, name: artefact.files[name][:cut]})


@pytest.mark.parametrize("name", ["model.so", "weights.bin", "plan.json"])
def test_a_file_that_is_missing_is_named(artefact: Artefact, name: str) -> None:
    with pytest.raises(CompileError, match="incomplete") as caught:
        CpuExecutable({key: content for key, content in artefact.files.items() if key != name})
    assert caught.value.why == f"it lacks {name}"


def test_a_library_that_is_none_is_refused(artefact: Artefact) -> None:
    files = {**artefact.files, "model.so": b"no library"}
    del files["plan.json"]
    plan = {**json.loads(artefact.files["plan.json"]), "checksums": checksums(files)}
    with pytest.raises(CompileError, match="cannot be loaded"):
        CpuExecutable(planned(files, plan))


def test_weights_of_another_size_than_the_library_wants_are_refused(artefact: Artefact) -> None:
    files = {**artefact.files, "weights.bin": artefact.files["weights.bin"] + bytes(64)}
    del files["plan.json"]
    plan = {**json.loads(artefact.files["plan.json"]), "checksums": checksums(files)}
    with pytest.raises(CompileError, match="damaged"):
        CpuExecutable(planned(files, plan))


def test_a_signature_that_the_plan_does_not_have_is_refused(artefact: Artefact) -> None:
    inputs = (Value("x", TensorSpec((1, 3, 8, 6))),)
    with pytest.raises(CompileError, match="damaged"):
        BACKEND.load(Artefact("m", "tvm", artefact.target, inputs, artefact.outputs, artefact.files))


def test_strides_of_every_kind_are_read_as_numpy_reads_them(artefact: Artefact) -> None:
    run = CpuExecutable(artefact.files, 1)
    large = np.random.default_rng(0).standard_normal((3, 12, 16, 2)).astype(np.float32)
    views = [large[:, ::2, ::2, 0], large[::-1, 5::-1, 15:7:-1, 1], np.broadcast_to(large[0, 0, :8, 0], (3, 6, 8))]
    unaligned = np.frombuffer(b"x" + large.tobytes(), np.float32, 144, 1).reshape(3, 6, 8)
    for view in [*views, unaligned, np.asfortranarray(large[:, :6, :8, 0])]:
        np.testing.assert_array_equal(run(view[None])[0], run(np.array(view[None], order="C"))[0])

"""What a build gives: the same bytes, one kernel for equal work, an artefact that runs as promised."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sketch import Sketch, aten, check, compare, numbers

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.ops.table import LOWERINGS
from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.compiler.measure.memory import memory_of
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.threads import usable_cores


def network() -> Model:
    torch.manual_seed(1)
    sketch = Sketch()
    value = sketch.conv(sketch.input(1, 3, 24, 24), 24, 3)
    for _ in range(4):
        value = sketch.call(aten.relu.default, sketch.conv(value, 24, 3))
    pooled = sketch.call(aten.reshape.default, sketch.call(aten.mean.dim, value, [2, 3], True), [1, 24])
    weight = sketch.stored(torch.randn(7, 24))
    return sketch.model(sketch.call(aten.linear.default, pooled, weight), value)


def build(model: Model, text: str = "native") -> Artefact:
    target = BACKEND.parse_target(text)
    assert target is not None
    return BACKEND.build(model, target, Workspace(threads=2))


def test_every_operator_of_the_dialect_has_a_lowering() -> None:
    assert set(LOWERINGS) == set(OPS) - {UNCALIBRATED, FAKE_QUANTIZE_CODEBOOK}


def test_equal_models_give_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(network())
    monkeypatch.setenv("LVC_CACHE", "")
    assert build(network()).files == first.files


def test_equal_kernels_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVC_CACHE", str(tmp_path))
    plan = json.loads(build(network()).files["plan.json"])
    kernels = {step["kernel"] for step in plan["steps"]}
    assert len(kernels) < len(plan["steps"])
    assert {file.stem for file in tmp_path.iterdir()} == {name.removeprefix("k_") for name in kernels}


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LVC_CACHE", str(tmp_path / "file" / "cache"))
    sketch = Sketch()
    check(sketch.model(sketch.call(aten.relu.default, sketch.input(5))), numbers(5))


def test_threads_give_equal_results() -> None:
    model, data = network(), numbers(1, 3, 24, 24)
    artefact = build(model)
    single, double = BACKEND.load(artefact, 1), BACKEND.load(artefact, 2)
    compare(single(data), model(data), 1e-4)
    for ours, theirs in zip(double(data), single(data), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_more_threads_run_than_there_are_cores() -> None:
    executable = BACKEND.load(build(network()), 1 << 30)
    assert executable.threads == usable_cores()
    assert executable(numbers(1, 3, 24, 24))[0].any()


def test_calls_from_several_threads() -> None:
    model = network()
    executable = BACKEND.load(build(model), 1)
    inputs = [numbers(1, 3, 24, 24, seed=seed) for seed in range(4)]
    expected = [executable(data) for data in inputs]
    found: dict[int, list[tuple[np.ndarray, ...]]] = {}

    def work(number: int) -> None:
        found[number] = [executable(inputs[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, results in found.items():
        for result in results:
            np.testing.assert_array_equal(result[0], expected[number][0])


def test_steps_are_timed() -> None:
    executable = BACKEND.load(build(network()), 1)
    steps = executable.time_steps([numbers(1, 3, 24, 24)], 2)
    assert len(steps) == len(executable.plan.steps)
    assert all(seconds > 0 for *_, seconds in steps)


def test_memory_is_told() -> None:
    artefact = build(network())
    memory = memory_of(artefact)
    assert memory
    assert memory.weights == len(artefact.files["weights.bin"])
    assert memory.external == sum(value.spec.bytes for value in (*artefact.inputs, *artefact.outputs))
    assert memory.live <= memory.workspace
    assert memory.peak(2) == memory.peak(1) + memory.scratch


def test_inputs_that_do_not_fit() -> None:
    executable = BACKEND.load(build(network()), 1)
    with pytest.raises(UsageError, match="takes 1 input"):
        executable()
    with pytest.raises(UsageError, match="must be float32"):
        executable(numbers(1, 3, 24, 25))
    strided = numbers(1, 3, 24, 48)[..., ::2]
    np.testing.assert_array_equal(executable(strided)[0], executable(np.ascontiguousarray(strided))[0])


def test_all_refused_nodes_are_listed() -> None:
    sketch = Sketch()
    half = sketch.input(4, dtype=torch.float16)
    with pytest.raises(CompileError) as caught:
        build(sketch.model(sketch.call(aten.relu.default, half), sketch.call(aten.neg.default, half)))
    assert caught.value.why.count("float16") == 3


@pytest.mark.parametrize("text", ["x86-64-v2", "x86-64-v4"])
def test_other_vector_widths_build(text: str) -> None:
    assert json.loads(build(network(), text).files["plan.json"])["target"] == text


def test_a_refused_schedule_is_replaced_and_noted() -> None:
    def refuse(schedule: object, vector: object) -> None:
        raise RuntimeError("not this way")

    target = BACKEND.parse_target("native")
    assert target is not None
    generator = CpuCodeGenerator.of(target)
    step = lower(network(), generator).steps[0]
    made = generator.compile(dataclasses.replace(step, schedule=refuse), "k")
    assert made.code.startswith(b"\x7fELF")
    assert made.refused == "RuntimeError: not this way"
    assert generator.compile(step, "k").refused == ""

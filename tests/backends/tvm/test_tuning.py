"""Every way in which a kernel may be made computes the same, and nothing that one does can harm the tuner."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sketch import Sketch, aten
from tvm import tirx

import lvc
from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.kernels import conv2d, depthwise, matmul, winograd
from lvc.backends.tvm.fused import write_nest
from lvc.backends.tvm.kernel_keys import code_version, kernel_keys, structure_key
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.tuning import race, shipped
from lvc.backends.tvm.tuning.contest import difference
from lvc.backends.tvm.tuning.shipped import Shipped
from lvc.backends.tvm.tuning.tunable import TvmKernel
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import compile
from lvc.compiler.ir.graph import WINOGRAD
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database, Place, Record, Trial
from lvc.compiler.tuning.judgement import BLOCK, MARGIN, Judge, Share
from lvc.compiler.tuning.kernels import CannotRace
from lvc.compiler.tuning.tuner import Tuner

NATIVE = Target.parse("native")
GENERATOR, PROCESSOR = CpuCodeGenerator.of(NATIVE), targets.timed_processor(NATIVE)
BRIEF = Judge(fewest=BLOCK, most=BLOCK)


def one_conv(out: int = 64, size: int = 14) -> Model:
    sketch = Sketch()
    return sketch.model(sketch.conv(sketch.input(1, 64, size, size), out))


def many() -> Model:
    """A kernel of each kind that is tuned."""
    sketch = Sketch()
    image = sketch.input(1, 32, 13, 13)
    first = sketch.conv(image, 64, 3)
    first.meta[WINOGRAD] = 4
    deep = sketch.conv(first, 64, groups=64, kernel=3)
    wide = sketch.conv(deep, 48)
    small = sketch.call(aten.max_pool2d.default, wide, [3, 3], [2, 2], [1, 1])
    flat = sketch.call(aten.reshape.default, small, [1, 48, 49])
    scores = sketch.call(aten.matmul.default, sketch.call(aten.permute.default, flat, [0, 2, 1]), flat)
    rows = sketch.call(aten.linear.default, scores, sketch.stored(torch.randn(40, 49)), sketch.stored(torch.randn(40)))
    return sketch.model(rows)


def kernels(model: Model) -> list[TvmKernel]:
    found: Sequence[Any] = BACKEND.tunable(model, NATIVE, Workspace(threads=1)).kernels
    return list(found)


def name(choice: str) -> str:
    return str(json.loads(choice)["kernel"])


def test_every_way_computes_the_same() -> None:
    seen = set()
    for kernel in kernels(many()):
        choices = kernel.choices()
        others = {name(choice): choice for choice in reversed(choices)}  # the best of each algorithm
        tried = list(dict.fromkeys([*others.values(), choices[-1]]))
        found = kernel.race(tried[0], tried[1:], BRIEF)
        assert found.failures == {}
        assert set(found.rounds) == {kernel.rule, *tried}
        assert all(len(times) == BLOCK or one not in (tried[0], kernel.rule) for one, times in found.rounds.items())
        assert kernel.roof < kernel.seconds
        seen |= {name(kernel.rule), *others}
    assert seen == {"conv2d", "winograd2", "winograd4", "depthwise", "pool2d", "batch_matmul", "matmul"}


def test_the_rule_is_among_the_ways() -> None:
    for kernel in kernels(many()):
        assert kernel.rule in dict(kernel.ways.all())
        assert kernel.rule not in kernel.choices()


@pytest.mark.parametrize(
    ("found", "wanted", "told"),
    [
        (np.float32([1, 2.001]), np.float32([1, 2]), ""),
        (np.float32([1, 2.1]), np.float32([1, 2]), "its results differ by 1.0e-01"),
        (np.float32([np.nan, 2]), np.float32([1, 2]), "its results differ by nan"),
        (np.uint16([0x3F80, 0x4000]), np.uint16([0x3F81, 0x4000]), ""),
        (np.uint16([0x3F80, 0x4000]), np.uint16([0x4080, 0x4000]), "its results differ by 3.0e+00"),
        (np.int8([1, 2]), np.int8([1, 3]), "1 of its 2 integers differ"),
    ],
)
def test_results_are_compared(found: np.ndarray, wanted: np.ndarray, told: str) -> None:
    assert difference(found, wanted)[: len(told)] == told
    assert bool(difference(found, wanted)) is bool(told)


def crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(*_: object) -> None:
    while True:
        pass


def fail(*_: object) -> None:
    raise ValueError("no such nest")


def leave_out(sch: Any, *_: object) -> None:
    write_nest(sch, tirx.Evaluate(0))


@pytest.mark.parametrize(
    ("fault", "told", "width"),  # each of a width of its own, for the cache would know its object from another fault
    [
        (crash, "it ended the process with SIGSEGV", 48),
        (hang, "it was still running after 1 s", 64),
        (fail, "TVM refused its schedule: ValueError: no such nest", 80),
        (leave_out, "its results differ by", 96),
    ],
)
def test_a_choice_that_fails_is_retired(
    fault: Callable[..., None], told: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others run on."""
    (kernel,) = kernels(one_conv(width))
    good, bad = kernel.choices()[:2]
    kernel.race(kernel.rule, [good], BRIEF)  # its objects are there when it hangs
    tile = json.loads(bad)
    plain = conv2d.schedule

    @functools.wraps(plain)
    def spoiled(sch: Any, problem: Any, vector: Any, knobs: Any = None) -> None:
        if all(getattr(knobs, key) == value for key, value in tile.items() if key != "kernel"):
            return fault(sch)
        return plain(sch, problem, vector, knobs)

    monkeypatch.setattr(conv2d, "schedule", spoiled)
    monkeypatch.setattr(race, "SECONDS_A_CHOICE", 0.25)
    monkeypatch.setattr("lvc.backends.tvm.tuning.apart.PATIENCE", 30.0)
    found = kernel.race(kernel.rule, [bad, good], BRIEF)
    assert list(found.failures) == [bad]
    assert found.failures[bad].startswith(told)
    assert set(found.rounds) == {kernel.rule, good}


def test_a_rule_that_cannot_be_built_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel,) = kernels(one_conv(112))
    monkeypatch.setattr(conv2d, "schedule", functools.wraps(conv2d.schedule)(crash))
    monkeypatch.setenv("LVC_CACHE", "")
    with pytest.raises(CannotRace, match="it ended the process with SIGSEGV"):
        kernel.race(kernel.rule, list(kernel.choices()[:1]), BRIEF)


def test_the_cache_of_kernels_tells_knobs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rule gives another kernel, and the same structure."""
    model, generator = one_conv(), GENERATOR

    def keys() -> tuple[str, str]:
        (step,) = [step for step in lower(model, generator).steps if generator.ways(step.schedule)]
        ways = generator.ways(step.schedule)
        assert ways
        return kernel_keys([step], generator.fingerprint)[0], structure_key(step.function, ways.structure)

    before, rule = keys(), conv2d.choose_knobs
    monkeypatch.setattr(conv2d, "choose_knobs", lambda *given: replace(rule(*given), pixels=1))
    after = keys()
    assert before[0] != after[0]
    assert before[1] == after[1]


def put(path: Path, key: str, choice: str, processor: str = "", version: str = "") -> None:
    place = Place(key, processor or PROCESSOR, version or code_version())
    Database(path, create=True).take({place: Record(choice, 0.8, "a layer")}, [], "test")


def compiled(model: Model, path: Path) -> Any:
    return compile(model, f"O2,use-records{{database={path}}}", workspace=Workspace(threads=1), verify=False)


def test_records_make_other_kernels_with_the_same_results(tmp_path: Path) -> None:
    model = one_conv()
    (kernel,) = kernels(model)
    put(tmp_path / "t.db", kernel.key, kernel.choices()[0])
    tuned, plain = compiled(model, tmp_path / "t.db"), compile(model, "O2", verify=False)
    assert tuned.metadata["tuned"] == [
        {"kernel": tuned.metadata["tuned"][0]["kernel"], "choice": json.loads(kernel.choices()[0]), "gain": 1.25}
    ]
    assert "tuning: 1 kernel made by records" in tuned.metadata["report"]["notes"]
    assert tuned.files["plan.json"] != plain.files["plan.json"]
    inputs = seeded_inputs(model.inputs, 0)
    for ours, theirs in zip(*(BACKEND.load(one, 1)(*inputs) for one in (tuned, plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "choice", "why"),
    [
        ({"processor": "znver9"}, "", "they were measured on another processor, znver9"),
        ({"version": "0.0"}, "", "they were measured with another version of lvc"),
        ({}, '{"kernel": "conv2d", "vectors": 99, "pixels": 99, "depth_parts": 1}', "vectors=99, pixels=99"),
        ({}, '{"kernel": "conv2d", "pixels": 1, "vectors": 2, "depth_parts": 1}', "are no knobs of it"),
        ({}, '{"kernel": "conv2d", "vectors": true, "pixels": 1, "depth_parts": 1}', "a knob that is no integer"),
        ({}, '{"kernel": "winograd4", "vectors": 1}', "may not be computed by minimal filtering"),
        ({}, '{"kernel": "matmul", "vectors": 1}', "'matmul' is no kernel for it"),
        ({}, '{"kernel": "os"}', "there is no kernel 'os'"),
        ({}, "[1]", "'[1]' is no choice"),
    ],
)
def test_records_that_do_not_hold_are_left_out(place: dict[str, str], choice: str, why: str, tmp_path: Path) -> None:
    model = one_conv()
    (kernel,) = kernels(model)
    put(tmp_path / "t.db", kernel.key, choice or kernel.choices()[0], **place)
    artefact = compiled(model, tmp_path / "t.db")
    assert artefact.metadata["tuned"] == []
    assert artefact.files == compile(model, "O2", verify=False).files
    (line,) = [line for line in artefact.metadata["remarks"] if "left out" in line]
    assert line.startswith("tuning: the records of 1 kernel were left out: ")
    assert why in line


def ship(kernel: TvmKernel, monkeypatch: pytest.MonkeyPatch, **other: str) -> None:
    """Let lvc come with a record of a kernel."""
    known = {"processor": PROCESSOR, "version": lvc.__version__, "rule": kernel.rule, **other}
    record = Shipped(kernel.choices()[0], 0.8, "a layer", known["rule"])
    place = Place(kernel.key, known["processor"], known["version"])
    monkeypatch.setattr(shipped, "shipped_records", lambda: {place: record})


def untuned(model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LVC_TUNING", "")
    monkeypatch.setenv("XDG_DATA_HOME", "/nowhere")
    return compile(model, "O3", workspace=Workspace(threads=1), verify=False)


def test_records_that_come_with_lvc_make_kernels_without_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = one_conv()
    (kernel,) = kernels(model)
    ship(kernel, monkeypatch)
    tuned = untuned(model, monkeypatch)
    (taken,) = tuned.metadata["tuned"]
    assert (taken["choice"], taken["gain"], taken["shipped"]) == (json.loads(kernel.choices()[0]), 1.25, True)
    assert tuned.files["plan.json"] != compile(model, "O2", verify=False).files["plan.json"]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"processor": "znver9"}, "they were measured on another processor, znver9"),
        ({"version": "0.0"}, "they were measured with another version of lvc"),
        ({"rule": '{"kernel": "conv2d", "vectors": 1}'}, "they come with lvc, whose rule has changed since"),
    ],
)
def test_records_that_come_with_lvc_may_not_hold(
    other: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = one_conv()
    (kernel,) = kernels(model)
    ship(kernel, monkeypatch, **other)
    plain = untuned(model, monkeypatch)
    assert plain.metadata["tuned"] == []
    assert [line for line in plain.metadata["remarks"] if why in line]


def test_what_was_tuned_here_counts_more_than_what_comes_with_lvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = one_conv()
    (kernel,) = kernels(model)
    ship(kernel, monkeypatch)
    database = Database(tmp_path / "t.db", create=True)
    here = Place(kernel.key, PROCESSOR, code_version())
    database.take({}, [(here, Trial(kernel.choices()[0], 1.1))], "test")
    assert compiled(model, tmp_path / "t.db").metadata["tuned"] == []
    database.take({here: Record(kernel.choices()[1], 0.5)}, [], "test")
    (taken,) = compiled(model, tmp_path / "t.db").metadata["tuned"]
    assert (taken["choice"], "shipped" in taken) == (json.loads(kernel.choices()[1]), False)


def test_the_records_that_lvc_comes_with_are_of_this_version() -> None:
    """A new version measures them again: python tools/ship_records.py."""
    content = shipped.FILE.read_text()
    records = shipped.shipped_records()
    assert shipped.to_json(lvc.__version__, records) == content
    assert len(records) == len(json.loads(content)["records"])
    for record in records.values():
        assert 0.2 < record.share < 1 - MARGIN
        for choice in (record.choice, record.rule):
            kernel, *knobs = json.loads(choice).items()
            assert kernel[0] == "kernel"
            assert all(type(value) is int for _, value in knobs)


def test_records_of_a_level_are_of_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "processor_name", lambda: "a certain processor")
    level, named = (Target.parse(text) for text in ("x86-64-v3", "znver4"))
    assert targets.timed_processor(level) == "x86-64-v3 on a certain processor"
    assert targets.timed_processor(named) == "znver4"


def test_without_a_database_nothing_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVC_TUNING", str(tmp_path / "none.db"))
    model, (step,) = Pipeline.parse("use-records").run(one_conv())
    assert step.outcome.notes == ["no kernel is tuned yet, which 'lvc tune' does: only lvc's own records count"]
    assert model.records == ""
    assert "use-records" in str(Pipeline.parse("O3"))


NET = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 1))
"""
TUNE = ["tune", "net.py:make", "--shape", "1x16x12x12", "--no-verify", "--threads", "1", "--db", "t.db"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LVC_TUNING", str(tmp_path / "t.db"))
    return tmp_path


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TUNE, "--trials", "5", "--report", "r.json", "--plot", "curve.png"]) == 0
    report, told = json.loads((folder / "r.json").read_text()), capsys.readouterr().out
    assert report["trials"] == len(Database(folder / "t.db").trials()) == 5
    assert f"{report['gain']:.2f}x so far" in told
    assert "the budget of 5 trials is spent" in told
    assert report["seconds_tuned"] <= report["seconds_by_rule"] == report["curve"][0][1]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    for row in report["kernels"]:
        assert row["gain"] >= 1
    model = ["compile", *TUNE[1:-2], "-O3", "-o", "net.lvc", "--report", "c.json"]
    assert main(model) == 0
    records = {record.choice for record in Database(folder / "t.db").records().values()}
    assert main(["inspect", "net.lvc", "--json"]) == 0
    made = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["metadata"]["tuned"]
    assert {json.dumps(item["choice"], sort_keys=True) for item in made} == {
        json.dumps(json.loads(choice), sort_keys=True) for choice in records
    }


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(folder: Path) -> None:
    command = [sys.executable, "-m", "lvc", *TUNE, "--trials", "40"]
    killed = 0
    for seconds in (9, 13, 17):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        run.kill()
        killed += run.wait() == -signal.SIGKILL
    assert killed
    ended = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    trials = Database(folder / "t.db").trials()
    assert len({(place.kernel, trial.choice) for place, trial in trials}) == len(trials)
    assert len(trials) == 40 or "nothing more is to be had" in ended


@pytest.mark.slow
@pytest.mark.parametrize("kind", [conv2d, depthwise, matmul])
def test_a_spoiled_rule_is_found_out(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning finds back at least 95 % of the good rule's speed."""
    sketch = Sketch()
    if kind is matmul:
        row = sketch.input(56, 512)
        model = sketch.model(sketch.call(aten.linear.default, row, sketch.stored(torch.randn(256, 512))))
    else:
        image = sketch.input(1, 64, 28, 28)
        model = sketch.model(sketch.conv(image, 64, 3, groups=64 if kind is depthwise else 1))
    (good,) = kernels(model)
    rule = kind.choose_knobs
    worst = {"rows": 1} if kind is matmul else {"pixels": 1}
    with monkeypatch.context() as patch:
        patch.setattr(kind, "choose_knobs", lambda *given: replace(rule(*given), **worst))
        tunable = BACKEND.tunable(model, NATIVE, Workspace(threads=1))
        account = Tuner(tunable, Database(tmp_path / "t.db", create=True), Budget(seconds=240)).run()
    found = account.rows[0].choice
    assert account.gain > 1.1
    times = good.race(good.rule, [found] if found != good.rule else [], Judge()).rounds if found != good.rule else {}
    assert not times or times[found].min() < times[good.rule].min() / 0.95


@pytest.mark.slow
def test_a_network_by_spoiled_rules_is_found_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within five minutes at least 95 % of the speed that it has by the good rules, in turns with that."""
    model, _ = Pipeline.parse("O2").run(
        LoadRequest("torchvision.models:resnet18", shapes={"": (1, 3, 128, 128)}).load()
    )
    rule, workspace = conv2d.choose_knobs, Workspace(threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(conv2d, "choose_knobs", lambda *given: replace(rule(*given), pixels=1))
        patch.setattr(winograd, "choose_tile", lambda *_: 0)
        spoiled = BACKEND.tunable(model, NATIVE, workspace)
        account = Tuner(spoiled, Database(tmp_path / "t.db", create=True), Budget(seconds=300)).run()
    found = {row.key: row.choice for row in account.rows}
    good, _, tuned = BACKEND.tunable(model, NATIVE, workspace).measure(found)[""].T
    share = Share.of(good, tuned)
    print(f"{account.summary}; {share.value:.3f} +- {share.error:.3f} of the speed by the good rules")
    assert account.gain > 1.5
    assert share.most > 0.95

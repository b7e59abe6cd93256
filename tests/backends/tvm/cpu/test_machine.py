"""What cost models know of processors, and that the tiles they choose do not fight for the caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sketch import Sketch

from lvc.backends.tvm.cpu import host, targets
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.kernels import matmul
from lvc.backends.tvm.cpu.kernels.matmul import Matmul
from lvc.backends.tvm.cpu.kernels.tile_cost import SECOND_SHARE
from lvc.backends.tvm.cpu.machine import GENERIC, Cache
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.kernel_keys import kernel_keys
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Target
from lvc.compiler.ir.dialect import aten

SMALL, LARGE = Cache(32 << 10, 8), Cache(48 << 10, 12)


@pytest.mark.parametrize(
    ("stride", "small", "large"),
    [
        (4096, 8, 12),  # all in one set
        (3 * 4096, 8, 12),
        (4096 + 4, 8, 12),  # as good as that
        (2048, 16, 24),  # in two
        (1024, 32, 48),
        (4096 + 64, 512, 768),  # as many as there are lines
        (64, 512, 768),
    ],
)
def test_rows_that_share_a_set_have_its_ways(stride: int, small: int, large: int) -> None:
    for cache, most in ((SMALL, small), (LARGE, large)):
        assert cache.holds(most, stride)
        assert not cache.holds(most + 1, stride)


def vector(cpu: str) -> Vector:
    target = targets.parse_target(cpu)
    assert target is not None
    return targets.vector_of(target)


@pytest.mark.parametrize("depth", [768, 1536, 3072, 4096, 4100])
@pytest.mark.parametrize("cpu", CPUS)
def test_the_rows_of_a_tile_do_not_fight_for_a_set(cpu: str, depth: int) -> None:
    unit = vector(cpu)
    for rows in (49, 197):
        knobs = matmul.choose_knobs(Matmul(rows, 768, depth, unit.lanes), unit)
        assert unit.machine.first.holds(knobs.rows, 4 * depth)


@pytest.mark.parametrize("cpu", [cpu for cpu, known in CPUS.items() if "avx512f" in known.features])
def test_the_panels_of_a_deep_product_stay_in_the_second_level(cpu: str) -> None:
    """Twelve products of vit_b_16; one vector by 29 rows was several times as slow."""
    unit = vector(cpu)
    knobs = matmul.choose_knobs(Matmul(197, 768, 3072, unit.lanes), unit)
    assert knobs.vectors * unit.bytes * 3072 <= SECOND_SHARE * unit.machine.second.size
    assert knobs.vectors >= 2
    assert knobs.vectors * knobs.rows >= 16


@pytest.mark.parametrize("cpu", ["x86-64-v3", "haswell", "znver2", "znver3"])
def test_deep_products_on_avx2_fill_its_registers(cpu: str) -> None:
    knobs = matmul.choose_knobs(Matmul(197, 768, 3072), vector(cpu))
    assert (knobs.vectors, knobs.rows) == (2, 6)


def folder(root: Path, name: str, **content: str) -> None:
    (root / name).mkdir(parents=True)
    for file, text in content.items():
        (root / name / file).write_text(f"{text}\n")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where the operating system is to describe the caches."""
    monkeypatch.delenv(host.STAND_IN, raising=False)
    monkeypatch.setattr(host, "_CACHES", tmp_path)
    return tmp_path


def test_caches_are_those_that_the_system_reports(caches: Path) -> None:
    folder(caches, "index0", level="1", type="Instruction", size="64K", ways_of_associativity="4")
    folder(caches, "index1", level="1", type="Data", size="48K", ways_of_associativity="12")
    folder(caches, "index2", level="2", type="Unified", size="2048K", ways_of_associativity="16")
    folder(caches, "index3", level="3", type="Unified", size="36864K", ways_of_associativity="12")
    known = replace(GENERIC, loads=3)
    expected = replace(known, first=LARGE, second=Cache(2 << 20, 16), third=Cache(36 << 20, 12))
    assert host.host_machine(known) == expected


@pytest.mark.parametrize(
    "report",
    [
        {"size": "0K", "ways_of_associativity": "8"},
        {"size": "1048576K", "ways_of_associativity": "16"},
        {"size": "1024K", "ways_of_associativity": "0"},
        {"size": "1M", "ways_of_associativity": "8"},
        {"size": "many", "ways_of_associativity": "8"},
        {"size": "1024K"},
    ],
)
def test_what_cannot_be_right_is_not_believed(report: dict[str, str], caches: Path) -> None:
    folder(caches, "index2", level="2", type="Unified", **report)
    assert host.host_machine(GENERIC) == GENERIC


def test_only_native_code_depends_on_the_machine_it_is_made_on(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_detected_features", lambda: CPUS["znver4"].features)
    folder(caches, "index1", level="1", type="Data", size="16K", ways_of_associativity="4")
    features = CPUS["x86-64-v3"].features
    for text, first in (("native", Cache(16 << 10, 4)), ("x86-64-v3", SMALL)):
        target = Target(text, "tvm", "x86-64", "x86-64-v3", features)
        assert targets.vector_of(target).machine.first == first
    monkeypatch.setenv(host.STAND_IN, "x86-64-v3")
    assert targets.vector_of(Target("native", "tvm", "x86-64", "x86-64-v3", features)).machine == GENERIC


def test_kernels_of_machines_that_differ_have_keys_that_do() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.call(aten.relu.default, sketch.input(2, 3)))
    other = Vector(Avx2(), replace(GENERIC, second=Cache(1 << 20, 8)))
    unit, same, larger = (CpuCodeGenerator(vector) for vector in (Vector(Avx2()), Vector(Avx2()), other))
    steps = lower(model, unit).steps
    first, second, third = (kernel_keys(steps, generator.fingerprint) for generator in (unit, same, larger))
    assert first == second != third

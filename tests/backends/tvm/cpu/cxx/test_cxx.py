"""A compiled model in C++: from a file and from memory, on threads, misused, and in the example by CMake."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cxx_program import COMPILERS, INCLUDE, LABELS, PREPROCESSING, RUNTIME, WARNINGS, Example
from programs import SHAPE, network, run

import lvc
from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.ir.signature import Signature
from lvc.compiler.measure.evaluation import best_classes, probabilities

EXAMPLE = Path(__file__).parents[5] / "examples" / "cxx"


def test_an_artefact_says_what_it_is(use: str, example: Example) -> None:
    lines = run(use, "describe", example.file).split("\n")
    assert lines[:3] == ["name Sequential", "task classify", f"preprocessing {PREPROCESSING}"]
    assert lines[3:5] == ["input input f32[1,3,16,16]", "output output f32[1,10]"]
    assert "\n".join(lines[5:]) == "".join(f"label {label}\n" for label in LABELS) + "in place 1\n"


def test_the_numbers_are_those_of_python(use: str, example: Example, tmp_path: Path) -> None:
    run(use, "run", example.file, example.input, str(tmp_path / "result"))
    assert (tmp_path / "result").read_bytes() == example.output.tobytes()


def test_variants_are_chosen_by_their_number(use: str, tmp_path: Path) -> None:
    artefact = lvc.compile(network(), verify=False, batches=(4,))
    container.write(artefact, tmp_path / "net.lvc")
    x = np.random.default_rng(0).standard_normal((5, *SHAPE[1:])).astype(np.float32)
    (tmp_path / "input").write_bytes(x.tobytes())
    run(use, "variants", str(tmp_path / "net.lvc"), str(tmp_path / "input"), str(tmp_path / "result"))
    assert (tmp_path / "result").read_bytes() == np.asarray(lvc.load(artefact)(x)).tobytes()
    lies = []
    for place, lie in enumerate(((), (Signature(artefact.inputs, artefact.outputs),), artefact.variants * 2)):
        container.write(dataclasses.replace(artefact, variants=lie), tmp_path / f"{place}.lvc")
        lies.append(str(tmp_path / f"{place}.lvc"))
    told = run(use, "open", *lies).splitlines()
    assert told[0].startswith("0 ")
    assert all("its code has another signature than its manifest" in line for line in told[1:])


def test_instances_share_weights_on_threads_of_their_own(use: str, use_on_threads: str, example: Example) -> None:
    run(use, "share", example.file, example.input)
    run(use_on_threads, "share", example.file, example.input)


def test_misuse_is_refused(use: str, example: Example) -> None:
    run(use, "misuse", example.file)


def test_a_forked_process_makes_instances_of_its_own(use: str, example: Example) -> None:
    run(use, "fork", example.file, example.input)


@pytest.mark.parametrize(
    "scores",
    [
        [0.5, 3, -1, 3, 2.5, 0.25, 3],
        [0.25, 0.5, 0.125, 0.125],
        [0.25, 0.5, 0.125, 0.25],
        [1.5, -0.5],
        [1, math.nan, 2, math.nan, 0, 5, 6],
        [-math.inf, 1, 0],
        [],
    ],
)
def test_classes_are_those_of_python(use: str, scores: list[float], tmp_path: Path) -> None:
    row = np.array([scores], np.float32)
    (tmp_path / "scores").write_bytes(row.tobytes())
    lines = [line.split() for line in run(use, "classes", str(tmp_path / "scores")).splitlines()]
    best = best_classes(row, 5)[0] if scores else []
    assert [int(place) for place, _ in lines] == list(best)
    if scores:
        np.testing.assert_allclose([float(share) for _, share in lines], probabilities(row)[0][best], rtol=1e-12)


@pytest.mark.parametrize("flags", [["-fno-exceptions", "-fno-rtti"], ["-std=c++20"]], ids=str)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_headers_compile_in_strict_programs(compiler: str, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "all.cpp").write_text("".join(f'#include "{file}"\n' for file in [*INCLUDE.rglob("*.hpp")] * 2))
    command = [compiler, "-std=c++17", *WARNINGS, *flags, "-fsyntax-only", str(tmp_path / "all.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_the_example_says_what_lvc_run_says(plain: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By CMake, as its documentation says."""
    if not EXAMPLE.is_dir() or not shutil.which("cmake"):
        pytest.skip("there is no cmake, or the examples are not beside the installed wheel")
    picture = str(tmp_path / "photo.ppm")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Path(picture).write_bytes(b"P6 # made here\n120 90\n255\n" + pixels.tobytes())
    assert main(["run", plain.file, picture, "--json"]) == 0
    top = json.loads(capsys.readouterr().out)["results"][0]["top"]
    settings = [f"-Dlvc_DIR={RUNTIME / 'cmake'}", f"-DMODEL={plain.file}", f"-DCMAKE_CXX_FLAGS={' '.join(WARNINGS)}"]
    run("cmake", "-S", str(EXAMPLE), "-B", str(tmp_path / "build"), *settings)
    run("cmake", "--build", str(tmp_path / "build"))
    found = run(str(tmp_path / "build" / "classify"), picture)
    assert found == "".join(f"{100 * r['probability']:6.2f} %  {r['index']:4}  {r['label']}\n" for r in top)


def test_artefacts_are_copied_beside_a_program_and_embedded_once_by_name(plain: Example, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    (tmp_path / "main.cpp").write_text("int main() {}\n")
    (tmp_path / "a-b.lvc").write_bytes(plain.content)
    lists = (
        "cmake_minimum_required(VERSION 3.18)\nproject(app LANGUAGES CXX)\nfind_package(lvc 0.1 REQUIRED)\n"
        "add_executable(app main.cpp)\nlvc_add_model(app a-b.lvc COPY)\n"
    )
    configure = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-Dlvc_DIR={RUNTIME / 'cmake'}"]
    for content in (plain.content, b"another"):
        (tmp_path / "a-b.lvc").write_bytes(content)
        (tmp_path / "CMakeLists.txt").write_text(lists)
        run(*configure)
        run("cmake", "--build", str(tmp_path / "build"))
        assert (tmp_path / "build" / "a-b.lvc").read_bytes() == content
    for line, text in {
        "lvc_add_model(app a-b.lvc)\nlvc_add_model(app a-b.lvc)": "two artefacts called 'a_b'",
        "lvc_add_model(app none.lvc)": "there is no artefact",
        "lvc_add_model(none a-b.lvc)": "there is no target 'none'",
        "lvc_add_model(app)": "no artefact is given",
        "lvc_add_model(app a-b.lvc NAME my-net)": "NAME 'my-net' is no name in C; 'my_net' is",
    }.items():
        (tmp_path / "CMakeLists.txt").write_text(lists + line)
        done = subprocess.run(configure, capture_output=True, text=True, check=False)
        assert done.returncode
        assert text in " ".join(done.stderr.split())


def test_versions_are_those_of_the_compiler() -> None:
    cmake = (RUNTIME / "cmake" / "lvcConfigVersion.cmake").read_text()
    assert f'set(PACKAGE_VERSION "{lvc.__version__}")' in cmake

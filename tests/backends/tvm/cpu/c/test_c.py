"""A built model as C: every form gives the bits that the artefact gives, by every compiler that is here."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_program import COMPILERS, HERE, WARNINGS, Example, compiler, made, outcome, result
from programs import run

from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.emission import FORMS

EXAMPLE = Path(__file__).parents[5] / "examples" / "c"
ON_THREADS = ("-DNET_THREADS=1", "-DTHREADS=2", "-pthread")


def package(example: Example, weights: str = "linked") -> list[Path]:
    """What a program is built of."""
    folder = example.emitted("c-package", weights)
    return [folder / "net.c", folder / "libnet_kernels.a"]


@pytest.mark.parametrize("name", COMPILERS)
def test_a_package_gives_the_bits_of_the_artefact(name: str, example: Example, tmp_path: Path) -> None:
    command, files = compiler(name), package(example)
    for flags in [(), ON_THREADS]:
        assert result(tmp_path, command, example, files, "-Wl,--gc-sections", *flags) == example.output.tobytes()


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_a_package_is_clean(sanitizer: str, example: Example, tmp_path: Path) -> None:
    """Nothing is read or written outside the memory of exactly the size that the header names."""
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", *ON_THREADS)
    assert result(tmp_path, compiler("gcc"), example, package(example), *flags) == example.output.tobytes()


@pytest.mark.parametrize("name", COMPILERS)
def test_weights_lie_in_a_file_to_map(name: str, plain: Example, tmp_path: Path) -> None:
    command, files = compiler(name), package(plain, "file")
    shutil.copy(files[0].with_name("net_weights.bin"), tmp_path)
    assert result(tmp_path, command, plain, files, "-DMAPPED", "-D_GNU_SOURCE") == plain.output.tobytes()
    assert "net_weights[" not in files[0].with_suffix(".h").read_text()


@pytest.mark.parametrize(("form", "linked"), [("static", "libnet.a"), ("object", "net.o"), ("shared", "libnet.so")])
def test_built_forms_give_the_same(form: str, linked: str, example: Example, tmp_path: Path) -> None:
    for threads, flags in (("none", ()), ("pthreads", ("-DTHREADS=2", "-pthread"))):
        folder = example.emitted(form, threads=threads)
        flags = (*flags, f"-Wl,-rpath,{folder}")
        assert result(tmp_path, compiler("gcc"), example, [folder / linked], *flags) == example.output.tobytes()


@pytest.mark.parametrize("name", COMPILERS)
def test_sources_give_the_same(name: str, example: Example, tmp_path: Path) -> None:
    """Kernels as assembly, and weights that it includes."""
    command, folder = compiler(name), example.emitted("source")
    files = [file for file in sorted(folder.glob("*")) if file.suffix in (".c", ".S")] + [*folder.rglob("*.s")]
    assert result(tmp_path, command, example, files) == example.output.tobytes()
    assert ".debug" not in "".join(file.read_text() for file in folder.rglob("*.s"))


def test_the_example_says_what_lvc_run_says(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures become numbers to the bit as in Python."""
    if not EXAMPLE.is_dir() or not shutil.which("cmake"):
        pytest.skip("there is no cmake, or the examples are not beside the installed wheel")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (tmp_path / "photo.ppm").write_bytes(b"P6\n16 16\n255\n" + pixels.tobytes())
    (tmp_path / "large.ppm").write_bytes(b"P6\n32 16\n255\n" + pixels.tobytes() * 2)
    (tmp_path / "numbers.f32").write_bytes(example.x.tobytes())
    (tmp_path / "few.f32").write_bytes(example.x.tobytes()[:-1])
    np.save(tmp_path / "numbers.npy", example.x)
    container.write(example.artefact, tmp_path / "net.lvc")
    model = example.emitted("c-package", name="classifier")
    run(
        "cmake",
        "-S",
        str(EXAMPLE),
        "-B",
        "build",
        f"-DMODEL={model}",
        "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror",
        folder=tmp_path,
    )
    run("cmake", "--build", "build", folder=tmp_path)
    for ours, theirs in (("photo.ppm", "photo.ppm"), ("numbers.f32", "numbers.npy")):
        assert main(["run", str(tmp_path / "net.lvc"), str(tmp_path / theirs), "--json"]) == 0
        top = json.loads(capsys.readouterr().out)["results"][0]["top"]
        wanted = "".join(f"{100 * r['probability']:6.2f} %  {r['index']:4}  {r['label']}\n" for r in top)
        assert run("build/classify", ours, folder=tmp_path) == wanted
    for name, why in {
        "large.ppm": "another size",
        "few.f32": "neither a picture nor",
        "none": "cannot be read",
    }.items():
        done = subprocess.run(["build/classify", name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert why in done.stderr


def test_names_from_a_model_end_no_comment_and_no_text(plain: Example, tmp_path: Path) -> None:
    """Who made a model chose the names of inputs and classes."""
    evil = '*/ int evil(void) { return 1; } /* "\\\n?'
    inputs = tuple(replace(value, name=evil) for value in plain.artefact.inputs)
    metadata = plain.artefact.metadata | {"labels": [evil, "\\", "naïve", '"', "??/"]}
    artefact = replace(plain.artefact, name=evil, inputs=inputs, metadata=metadata)
    folder = replace(plain, artefact=artefact, folder=tmp_path).emitted("static")
    text = (
        '#include <stdio.h>\n#include "net.h"\n#include "net_labels.h"\n'
        "int main(void) { for (int i = 0; i < 5; i++) puts(net_labels[i]); }\n"
    )
    (tmp_path / "names.c").write_text(text)
    run(*compiler("gcc"), *WARNINGS, f"-I{folder}", "names.c", "-o", "names", folder=tmp_path)
    assert run("./names", folder=tmp_path) == "".join(f"{label}\n" for label in metadata["labels"])


@pytest.mark.parametrize(("form", "count", "threads"), [("c-package", 2, "ON"), ("source", 1, "OFF")])
def test_cmake_builds_it(form: str, count: int, threads: str, plain: Example, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app LANGUAGES C)\n"
        f"add_subdirectory({plain.emitted(form)} net)\nadd_executable(use {HERE / 'use.c'})\n"
        f"target_link_libraries(use PRIVATE net)\ntarget_compile_definitions(use PRIVATE THREADS={count})\n"
    )
    run("cmake", "-B", "build", f"-DNET_THREADS={threads}", folder=tmp_path)
    run("cmake", "--build", "build", folder=tmp_path)
    assert outcome(tmp_path, ["build/use"], plain) == plain.output.tobytes()


TWO = """
#include "net.h"
#include "other.h"
#include <stdio.h>
static _Alignas(64) unsigned char first[NET_MODEL_BYTES(2)], second[OTHER_MODEL_BYTES(1)], input[NET_INPUT_0_BYTES];
static _Alignas(64) unsigned char results[2][NET_OUTPUT_0_BYTES];

int main(void) {
  net_model *net;
  other_model *other;
  FILE *file = fopen("input.bin", "rb");
  if (!file || fread(input, 1, sizeof input, file) != sizeof input || fclose(file)) return 1;
  if (net_model_place(first, sizeof first, net_weights, 2, 0, &net)) return 2;
  if (other_model_place(second, sizeof second, other_weights, 1, 0, &other)) return 3;
  const void *inputs[] = {input};
  for (int i = 0; i < 20; i++) {
    void *mine[] = {results[0]}, *its[] = {results[1]};
    if (net_run(net, inputs, mine) || other_run(other, inputs, its)) return 4;
  }
  net_model_destroy(net);
  other_model_destroy(other);
  file = fopen("output.bin", "wb");
  for (int i = 0; i < 2; i++)
    if (fwrite(results[i], 1, NET_OUTPUT_0_BYTES, file) != NET_OUTPUT_0_BYTES) return 5;
  return fclose(file);
}
"""


@pytest.mark.parametrize(("form", "linked"), [("static", "lib{}.a"), ("object", "{}.o")])
def test_two_models_fit_into_a_program(form: str, linked: str, plain: Example, tmp_path: Path) -> None:
    """Also where they have the same kernels, and one runs on threads and the other does not."""
    other = made(tmp_path, "O2", seed=1)
    folders = plain.emitted(form, threads="pthreads"), other.emitted(form, name="other")
    (tmp_path / "two.c").write_text(TWO)
    (tmp_path / "input.bin").write_bytes(plain.x.tobytes())
    files = [str(folder / linked.format(folder.name)) for folder in folders]
    used = [f"-I{folder}" for folder in folders]
    run(*compiler("gcc"), *WARNINGS, *used, "two.c", *files, "-pthread", "-o", "two", folder=tmp_path)
    run("./two", folder=tmp_path)
    assert (tmp_path / "output.bin").read_bytes() == plain.output.tobytes() + other.output.tobytes()


def test_a_package_calls_nothing_but_copies(example: Example, tmp_path: Path) -> None:
    """No heap, no files, no output: what is left to be found is in every C library."""
    library = str(example.emitted("static") / "libnet.a")
    run(*compiler("gcc"), "-r", "-nostdlib", "-o", "all.o", "-Wl,--whole-archive", library, folder=tmp_path)
    wanted = {line.split()[-1] for line in run("nm", "-u", "all.o", folder=tmp_path).splitlines()}
    assert wanted <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "artefact"])
def test_the_manifest_says_what_is_there(form: str, plain: Example) -> None:
    folder = plain.emitted(form)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {*manifest["files"], "manifest.json"} == files
    for name, known in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (known["bytes"], known["sha256"])
    assert (manifest["form"], manifest["name"], manifest["inputs"]) == (form, "net", [["input", "f32[1,3,16,16]"]])
    assert manifest["preprocessing"] == "layout=bgr,range=symmetric,mean=0.1,std=0.3/0.25/0.7"
    assert manifest["bytes"]["weights"] == len(plain.artefact.files["weights.bin"])
    assert manifest["labels"] == [*"abcdefghij"]


def test_equal_models_give_equal_files(plain: Example, tmp_path: Path) -> None:
    again = made(tmp_path, "O2")
    for form in ("c-package", "source", "object"):
        folders = [example.emitted(form) for example in (plain, again)]
        contents = [{f.relative_to(d): f.read_bytes() for f in d.rglob("*") if f.is_file()} for d in folders]
        assert contents[0] == contents[1]

"""The house keeps its plan: packages as listed, rooms that know only whom they may know, files of a readable length."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lvc
from lvc.compiler.pipeline import catalogue

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"lvc": "compiler/lvc", "lvc.compiler": "compiler", "lvc.passes": "passes", "lvc.backends": "backends"}
FORBIDDEN = {
    "compiler": ("lvc.passes", "lvc.backends", "tvm"),
    "passes": ("lvc.backends", "tvm"),
    "backends": ("lvc.passes",),
}

needs_checkout = pytest.mark.skipif(
    not (ROOT / "compiler").is_dir(), reason="the suite runs against an installed wheel"
)


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def texts(file: Path) -> Iterator[str]:
    """The texts of a program that are no docstrings."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.value


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@needs_checkout
def test_packages_are_listed_as_they_stand() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"lvc"}
    for name, folder in ROOMS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            relative = init.parent.relative_to(ROOT / folder)
            if name == "lvc.compiler" and relative.parts[:1] in (("lvc",), ("lvc_runtime",)):
                continue
            found.add(".".join([name, *relative.parts]))
    assert sorted(listed) == sorted(found)


@needs_checkout
@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_whom_they_may(room: str) -> None:
    for file in sources(room):
        for name in imports(file):
            for other in FORBIDDEN[room]:
                assert not f"{name}.".startswith(f"{other}."), f"{file.relative_to(ROOT)} imports {name}"


@needs_checkout
def test_what_knows_a_device_is_known_to_nobody_else() -> None:
    """Of the two storeys of the tvm backend the lower one, and other devices, reach a device by its protocol alone."""
    room = ROOT / "backends" / "tvm"
    devices = [file.parent for file in room.glob("*/device.py")]
    assert room / "cpu" in devices
    for file in sources("backends"):
        for name in imports(file):
            read = next(
                (folder for folder in devices if f"{name}.".startswith(f"lvc.backends.tvm.{folder.name}.")), None
            )
            assert read is None or read in file.parents, f"{file.relative_to(ROOT)} imports {name}"


@needs_checkout
def test_an_architecture_is_known_to_its_own_files_alone() -> None:
    """A processor's record says what code for it is called and what its vectors can do; all else asks the record."""
    room = ROOT / "backends" / "tvm"
    own = [room / "cpu" / "architectures", room / "cpu" / "isa"]
    names = re.compile(r"x86.64\b|x86-|amd64|\bavx|vnni", re.IGNORECASE)
    for file in sources("backends/tvm"):
        if not any(folder in file.parents for folder in own) and file.name != "processors.py":
            assert not names.search(file.read_text()), file


@needs_checkout
def test_passes_borrow_from_rooms_and_not_from_passes() -> None:
    passes = {f"lvc.passes.{file.stem}" for file in (ROOT / "passes").glob("*.py")} - {"lvc.passes.__init__"}
    for file in sources("passes"):
        assert not passes & set(imports(file)), file.relative_to(ROOT)


@needs_checkout
def test_tvm_is_imported_by_its_backend_alone() -> None:
    for file in [f for room in FORBIDDEN for f in sources(room)]:
        if (ROOT / "backends" / "tvm") not in file.parents:
            assert not any(name.split(".")[0] in ("tvm", "tvm_ffi") for name in imports(file)), file


@needs_checkout
def test_matplotlib_is_imported_by_pictures_alone() -> None:
    for file in [f for room in FORBIDDEN for f in sources(room)]:
        if (ROOT / "compiler" / "measure" / "pictures") not in file.parents:
            assert not any(name.split(".")[0] == "matplotlib" for name in imports(file)), file


@needs_checkout
def test_operators_are_registered_in_one_place() -> None:
    files = [f.relative_to(ROOT) for room in FORBIDDEN for f in sources(room) if "torch.library" in imports(f)]
    assert files == [Path("compiler/ir/operators/library.py")]


NAME_A_LAYER = {
    "compiler/ir/dialect.py",  # what stands in a graph
    "compiler/ir/layers.py",  # the table
    "compiler/load/normalise/contraction.py",  # what makes layers of synonyms and of ONNX
    "compiler/load/onnx_importer/ops/arithmetic.py",
    "compiler/load/onnx_importer/ops/contraction.py",
    "compiler/load/onnx_importer/ops/convolution.py",
    "compiler/load/onnx_importer/ops/pooling.py",
    "passes/allow_winograd.py",  # rules that are for one kind of layer and no other
    "passes/identities/padding.py",
    "passes/quantise_dynamically.py",
    "passes/smooth_activations.py",
    "passes/low_rank/placing.py",  # what writes layers of factors
    "passes/analysis/channels/layers.py",
    "backends/onnx/operators/contraction.py",  # what an operator is lowered to
    "backends/tvm/cpu/kernels/conv2d.py",
    "backends/tvm/cpu/kernels/conv_transpose2d.py",
    "backends/tvm/cpu/kernels/depthwise.py",
    "backends/tvm/cpu/kernels/matmul.py",
    "backends/tvm/gpu/kernels/convolution.py",
    "backends/tvm/gpu/kernels/depthwise.py",
    "backends/tvm/gpu/kernels/matmul.py",
    "backends/tvm/gpu/kernels/tensor_matmul.py",
    "backends/tvm/operands.py",
    "backends/tvm/ops/contractions.py",
}
"""The files that may name the operator of a layer; whoever asks something of layers asks `lvc.compiler.ir.layers`."""


@needs_checkout
def test_few_files_name_the_operator_of_a_layer() -> None:
    names = re.compile(r"\baten\.(conv2d\.default|conv_transpose2d\.input|linear\.default)")
    files = [file for room in FORBIDDEN for file in sources(room)]
    assert {str(file.relative_to(ROOT)) for file in files if names.search(file.read_text())} == NAME_A_LAYER


@needs_checkout
def test_the_driver_and_the_commands_name_no_pass_and_no_backend() -> None:
    """What they ask of passes and backends is a property of these; names stand in the catalogue."""
    names = {*catalogue.PASSES.names(), *catalogue.BACKENDS.names()}
    rooms = [file for room in ("cli", "measure", "pipeline", "verification") for file in sources(f"compiler/{room}")]
    for file in [*rooms, *(ROOT / "compiler").glob("*.py")]:
        if file.name != "catalogue.py":
            assert not {part for text in texts(file) for part in re.split("[,{]", text)} & names, file
            assert not {word for text in texts(file) for word in re.findall(r"\w+(?:-\w+)+", text)} & names, file


FIELD_WORDS = {
    r"whole[- ]numbers?": "integer",
    r"\bdoors?\b|_doors?\b": "importer",
    r"\bmeetings?\b": "requantisation",
    r"\bsteep|\bbends\b": "gradient, curvature",
    r"(?<!mesh)(?<!affine_)(?<!\[\")[Gg]rids?\b(?!_sample|\.color)"
    r"|WeightGrid|GridKind": "quantisation parameters, codebook",
    r"\brisky\b|\bguards_(of|shape)|is_guarded": "saturation mask",
    r"\b[Oo]bservers?\b(?=[^,]*\brange)|RangeObserver": "range estimator",
}
"""Words that are not the field's, and those that whoever searches for such a thing would type."""

OF_PICTURES_AND_SAMPLING = {
    "compiler/load/normalise/creation.py",
    "compiler/load/normalise/regions.py",
    "compiler/load/onnx_importer/ops/grid.py",
    "compiler/load/onnx_importer/ops/indexing.py",
    "compiler/measure/pictures/canvas.py",
    "compiler/measure/pictures/dots.py",
}
"""The files that speak of grids of pixels."""

OF_LOOPS = ("backends/tvm/cpu/kernels", "backends/tvm/gpu", "backends/tvm/nest.py")
"""The rooms of nested loops, which are grids too."""


@needs_checkout
def test_names_are_those_of_the_field() -> None:
    loops = {ROOT / room for room in OF_LOOPS}
    programs = [file for room in FORBIDDEN for file in sources(room) if not loops & {file, *file.parents}]
    for file in [*programs, *(ROOT / "docs").glob("[!r]*.md"), ROOT / "README.md"]:
        text = f"{file.stem}\n{file.read_text()}"
        for pattern, word in FIELD_WORDS.items():
            if str(file.relative_to(ROOT)) not in OF_PICTURES_AND_SAMPLING:
                assert not re.search(pattern, text), f"{file.relative_to(ROOT)}: {re.search(pattern, text)} for {word}"


@needs_checkout
def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(f.relative_to(ROOT)): n
        for r in FORBIDDEN
        for f in sources(r)
        if (n := len(f.read_text().split("\n"))) > 401
    }
    assert not long


def test_the_tested_package_is_the_wanted_one() -> None:
    wanted = os.environ.get("LVC_TEST_INSTALLED")
    folder = Path(lvc.__file__).resolve()
    assert (Path(wanted).resolve() if wanted else ROOT) in folder.parents


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lvc.compiler.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'onnx', 'tvm', 'tvm_ffi', 'rich', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "compile" in run.stdout


@needs_checkout
def test_no_program_takes_the_beginning_of_an_option_for_it() -> None:
    calls = {
        (file.name, ast.unparse(node))
        for folder in ("compiler", "backends", "passes", "tools", "examples")
        for file in sources(folder)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "argparse.ArgumentParser"
    }
    assert calls
    assert {name for name, text in calls if "allow_abbrev=False" not in text} == set()

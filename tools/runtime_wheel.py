"""Build the wheel ``lvc-runtime``: the modules of lvc that run a model with all that they import, headers, CMake files.

python tools/runtime_wheel.py [FOLDER]
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"lvc.compiler": ROOT / "compiler", "lvc.backends": ROOT / "backends", "lvc": ROOT / "compiler" / "lvc"}
"""Where modules lie, by the beginning of their names."""

STARTS = (
    "lvc",
    "lvc.backends.tvm.backend",
    "lvc.backends.tvm.cpu.device",
    "lvc.backends.tvm.cpu.executable",
    "lvc.backends.tvm.gpu.device",
    "lvc.backends.tvm.gpu.executable",
    "lvc.compiler.cli.found",
    "lvc.compiler.cli.run",
    "lvc.compiler.cli.serve_device",
    "lvc.compiler.data.drawing",
    "lvc.compiler.data.feed",
    "lvc.compiler.data.preprocess",
    "lvc.compiler.data.seeded",
    "lvc.compiler.files",
    "lvc.compiler.loaded",
    "lvc.compiler.measure.detections",
    "lvc.compiler.measure.device",
    "lvc.compiler.measure.evaluation",
    "lvc.compiler.remote.server",
    "lvc.compiler.remote.worker",
    "lvc.compiler.text",
    "lvc.compiler.tuning.postgres",
)
"""What is imported when it is needed; the rest follows from the imports of these."""

FROM_OUTSIDE = {"numpy", "PIL"}
"""What modules may import; Pillow only where a picture is read."""

RUNTIME = "lvc.backends.tvm.runtime"
DATA = ("c/*.h", "include/**/*.h", "include/**/*.hpp", "cmake/*.cmake")

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "lvc-runtime"
version = "{version}"
description = "Runs models that lvc compiled: Python with NumPy alone, headers for C and C++"
readme = "README.md"
requires-python = "{requires-python}"
license = "{license}"
license-files = ["LICENSE"]
dependencies = ["numpy>=1.24"]

[project.optional-dependencies]
pictures = ["{pillow}"]

[project.scripts]
lvc-run = "lvc_runtime.__main__:main"
lvc-serve = "lvc_runtime.serve:main"

[tool.setuptools.packages.find]
include = ["lvc_runtime*"]

[tool.setuptools.package-data]
"*" = ["*.h", "*.hpp", "*.cmake"]
"""


def main(arguments: list[str]) -> int:
    folder = Path(*arguments) if arguments else ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="lvc-runtime-") as name:
        source = Path(name)
        stage(source)
        print(build(source, folder))
    return 0


def stage(folder: Path) -> None:
    """Lay out the sources of the wheel in an empty folder."""
    package = folder / "lvc_runtime"
    shutil.copytree(ROOT / "compiler" / "lvc_runtime", package, ignore=shutil.ignore_patterns("__pycache__"))
    files = [(name, file_of(name)) for name in modules(STARTS)]
    runtime = file_of(RUNTIME).parent
    files += [(RUNTIME, file) for pattern in DATA for file in runtime.glob(pattern)]
    for name, file in files:
        top = next(top for top in FOLDERS if f"{name}.".startswith(f"{top}."))
        place = package / "modules" / Path(*top.split(".")) / file.relative_to(FOLDERS[top])
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    (folder / "pyproject.toml").write_text(project())
    shutil.copy(ROOT / "docs" / "devices.md", folder / "README.md")
    shutil.copy(ROOT / "LICENSE", folder)


def project() -> str:
    """The wheel's own pyproject.toml; what both wheels have in common is that of lvc."""
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own["pillow"] = next(text for text in own["dependencies"] if text.startswith("pillow"))
    text = PROJECT
    for key in ("version", "requires-python", "license", "pillow"):
        text = text.replace(f"{{{key}}}", own[key])
    return text


def modules(starts: Iterable[str]) -> list[str]:
    """Those modules and all of ours that are imported along with them, sorted; nothing else from outside is."""
    found, open_ = set[str](), list(starts)
    while open_:
        name = open_.pop()
        if name in found:
            continue
        found.add(name)
        if "." in name:
            open_.append(name.rpartition(".")[0])
        for imported in imports(ast.parse(file_of(name).read_text()).body):
            top = imported.partition(".")[0]
            if top == "lvc":
                open_.append(imported if is_module(imported) else imported.rpartition(".")[0])
            elif top not in sys.stdlib_module_names | FROM_OUTSIDE:
                raise SystemExit(f"{name} imports {imported}: lvc-runtime has NumPy alone")
    return sorted(found)


def imports(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """What a module imports when it is imported itself; of ``from a import b`` both ``a.b`` and with it ``a``."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) != "TYPE_CHECKING":
            yield from imports([*statement.body, *statement.orelse])


def is_module(name: str) -> bool:
    return file_of(name).is_file()


def file_of(name: str) -> Path:
    """The file of a module."""
    top = next(top for top in FOLDERS if f"{name}.".startswith(f"{top}."))
    path = FOLDERS[top].joinpath(*name.removeprefix(top).split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a folder with sources into another folder, which it makes; return its path."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    if built.returncode:
        raise SystemExit(built.stdout + built.stderr)
    return max(folder.glob("*.whl"), key=lambda file: file.stat().st_mtime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

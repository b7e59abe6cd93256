"""Run the test suite against the built wheel, in a folder from which the checkout's own packages cannot be seen.

python tools/test_wheel.py [PYTEST ARGUMENT ...]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests", "examples", "tools", "pyproject.toml")
DEFAULT = ["-n", "2", "-m", "not slow and not targets", "-q"]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="lvc-wheel-") as name:
        folder = Path(name)
        installed, checkout = folder / "installed", folder / "checkout"
        wheel = build_wheel(folder / "dist")
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
        subprocess.run([sys.executable, "-m", *install], check=True)
        checkout.mkdir()
        for part in TESTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, checkout / part)
        environment = {**os.environ, "PYTHONPATH": str(installed), "LVC_TEST_INSTALLED": str(installed)}
        command = [sys.executable, "-m", "pytest", *(arguments or DEFAULT)]
        return subprocess.run(command, cwd=checkout, env=environment, check=False).returncode


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout, so that no build folder is left in it."""
    source = folder.parent / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

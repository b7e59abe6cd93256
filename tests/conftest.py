"""Where tests find the trained models and labelled images, and how random tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before PyTorch is imported: workers share the cores

# the same examples on every run, and no verdict on how long one takes: machines are shared
settings.register_profile("lvc", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lvc")

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of test assets; a test that needs it skips when it is missing."""
    folder = Path(os.environ.get("LVC_TEST_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"the test assets are missing: no folder {folder} (set LVC_TEST_ASSETS)")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this processor, or the one that `LVC_NATIVE` has it behave as, cannot run."""
    from lvc.backends.tvm.cpu.host import KNOWN, host_features

    needed = {name for mark in item.iter_markers("isa") for name in mark.args}
    assert needed <= KNOWN, f"no target has {', '.join(sorted(needed - KNOWN))}"
    if missing := sorted(needed - host_features()):
        pytest.skip(f"this processor has no {', '.join(missing)}")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Give back the cores that an engine took by pinning its thread: lvc has no more threads than cores to use."""
    if CORES:
        os.sched_setaffinity(0, CORES)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the golden cases give now into their files"
    )

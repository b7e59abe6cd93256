"""Where tests find the trained models and labelled images, and how random tests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from postgres_server import Cluster

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of the tests' own; a test that needs it skips where there is none."""
    from postgres_server import cluster

    with cluster() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a tuning database may be made, on each kind of store."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "t.db")
    found: Cluster = request.getfixturevalue("postgres")
    return found.new()


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

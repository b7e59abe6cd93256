"""Tests of kernels build them for AVX2, or for wider vectors that LLVM cuts for it."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.isa("avx2", "fma"))

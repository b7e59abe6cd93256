"""Tests of the TVM backend share one object cache of their own."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def object_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("LVC_CACHE", str(tmp_path_factory.mktemp("objects")))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)

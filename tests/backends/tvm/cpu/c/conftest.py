from __future__ import annotations

import pytest
from c_program import Example, made


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return made(tmp_path_factory.mktemp("plain"), "O2")


@pytest.fixture(scope="session")
def integer(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return made(tmp_path_factory.mktemp("integer"), "int8-fast")


@pytest.fixture(params=["plain", "integer"])
def example(request: pytest.FixtureRequest) -> Example:
    """A model in float, and one in 8 bits."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Example)
    return found

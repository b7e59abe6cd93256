from __future__ import annotations

import pytest
from cxx_program import COMPILERS, Example, built, made


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return made(tmp_path_factory.mktemp("plain"), "O2")


@pytest.fixture(scope="session")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return made(tmp_path_factory.mktemp("coded"), "O2,quantise-weights{bits=4 group=32}")


@pytest.fixture(params=["plain", "coded"])
def example(request: pytest.FixtureRequest) -> Example:
    """An artefact whose weights lie in it as a run reads them, or are decoded when it is loaded."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Example)
    return found


@pytest.fixture(scope="session")
def use(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not COMPILERS:
        pytest.skip("there is no compiler for C++")
    return built(tmp_path_factory.mktemp("use"), "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="session")
def use_on_threads(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not COMPILERS:
        pytest.skip("there is no compiler for C++")
    return built(tmp_path_factory.mktemp("use"), "-fsanitize=thread")

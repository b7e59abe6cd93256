"""Imports of large libraries: the collector of garbage rests for them, and is then as it was."""

from __future__ import annotations

import gc

import pytest

from lvc.compiler.imports import large_imports


def test_nothing_is_collected_while_large_libraries_are_imported() -> None:
    assert gc.isenabled()
    with large_imports():
        assert not gc.isenabled()
        with large_imports():
            pass
        assert not gc.isenabled()  # the outer one is not done
    assert gc.isenabled()


def test_what_cannot_be_imported_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), large_imports():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_rests_already_is_not_woken() -> None:
    gc.disable()
    try:
        with large_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

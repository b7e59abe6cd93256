"""Data sets out of the user's own code: ``package.module:callable`` or ``path/to/file.py:callable``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cache
from typing import Any

import numpy as np

from lvc.compiler.data.images import prepare
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Sample, Samples, check_label, missing_preprocess
from lvc.compiler.errors import LvcError, UsageError


def open_callable(text: str, preprocess: Preprocess | None, fits: Fit) -> Samples:
    """Open what a callable returns: an iterable of ``(x, y)`` pairs, or of ``x`` alone.

    ``x`` is an image (Pillow, or ``uint8[H,W,3]``), to be preprocessed, or an array or tensor in the shape that the
    model takes, with or without the batch dimension, which is used as it is. It is called again for every pass over
    the data; an iterable without a length is run through once to count it.
    """
    make = _find(text)

    def items() -> Iterable[Any]:
        found = _guarded(text, make)
        if not isinstance(found, Iterable):
            raise UsageError(f"'{text}' returned {type(found).__name__}", help="return an iterable of (x, y)")
        return found

    @cache
    def count() -> int:
        found = items()
        return len(found) if isinstance(found, Sized) else sum(1 for _ in _iterate(text, found))

    def read() -> Iterator[Sample]:
        for index, item in enumerate(_iterate(text, items())):
            where = f"{text}, item {index}"
            x, y = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
            yield where, _to_array(x, where, preprocess, fits), check_label(y, where)

    return Samples(read, count, fits)


def _to_array(x: Any, where: str, preprocess: Preprocess | None, fits: Fit) -> np.ndarray:
    from PIL import Image

    if not isinstance(x, Image.Image):
        array: np.ndarray = np.asarray(x)
        if fits.takes_as_it_is(array.dtype, array.shape, prepared=preprocess is not None):
            return array
        x = array
    if preprocess is None:
        raise missing_preprocess(where)
    return prepare(x, where, preprocess, fits)


def _find(text: str) -> Callable[[], object]:
    from lvc.compiler.load.user_code import import_place

    place, _, name = text.rpartition(":")
    found = getattr(import_place(place), name, None)
    if not callable(found):
        raise UsageError(f"'{place}' has no callable '{name}'", help="name a function that returns pairs (x, y)")
    return found  # type: ignore[no-any-return]


def _guarded(text: str, work: Callable[[], object]) -> object:
    """Run code of the user; whatever it raises becomes one error that names it."""
    try:
        return work()
    except LvcError:
        raise
    except Exception as error:
        raise _failed(text, error) from error


def _iterate(text: str, items: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from items
    except LvcError:
        raise
    except Exception as error:
        raise _failed(text, error) from error


def _failed(text: str, error: Exception) -> LvcError:
    from lvc.compiler.load.user_code import failed

    return failed(f"the data set '{text}' failed", error)
